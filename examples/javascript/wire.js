// Messages to frames and back: sections 2, 3 and 5 of PROTOCOL.md. It knows no socket.

import { Decoder, Encoder } from "@msgpack/msgpack";

export const KIND = { HELLO: 1, WELCOME: 2, REJECT: 3, CALLS: 4, REPLIES: 5, CANCEL: 6, BYE: 7, PIPE: 8, CREDIT: 9 };
export const STATUS = {
  ACCESS_DENIED: 5, UNKNOWN_INTERFACE: 1717, UNAVAILABLE: 1722, FAILED: 1726, FAILED_DNE: 1727, PROTOCOL: 1728,
  UNKNOWN_OPERATION: 1745, BAD_DATA: 1783, CANCELLED: 1818, DISCIPLINE: 1917, EXCEPTION: 0xe0000001,
};
export const WINDOW = 262144;
const MOST = 65536; // entries of one array
const MAGIC = [0x43, 0x50];

/** What is not a message of this protocol, or not one that may be: section 5. `ours`: it begins with CP. */
export class Garbage extends Error {
  constructor(why, ours = true) {
    super(why);
    this.ours = ours;
  }
}

// The library's habits: integers above 2^53 lose their last bits, maps with integer keys become objects with text keys,
// and text that is no UTF-8 is taken with replacement characters.
const encoder = new Encoder();
const decoder = new Decoder({ maxArrayLength: 1 << 20 });

export const pack = (value) => encoder.encode(value);
export const unpack = (bytes) => decoder.decode(bytes);

/** The frames of a message: a body, and blobs. */
export function encode(kind, body, blobs = []) {
  return [Buffer.concat([Buffer.from([...MAGIC, 1, kind]), pack(body)]), ...blobs];
}

// Checks. Each takes a value and returns it, or what stands for it, or throws.

const need = (right, what) => {
  if (!right) throw new Garbage(what);
};
const int = (value) => (need(Number.isInteger(value) || typeof value === "bigint", "an int"), value);
const nat = (value) => (need(int(value) >= 0, "a natural number"), value);
const number = (value) => (need(typeof value === "number" || typeof value === "bigint", "a number"), value);
const bool = (value) => (need(typeof value === "boolean", "a truth value"), value);
const bytes = (value) => (need(value instanceof Uint8Array, "bytes"), value);
const identity = (value) => (need(bytes(value).length === 16, "16 bytes"), value);
const any = (value) => value;
const text = (value) => (need(typeof value === "string", "text"), value);
const name = (value) => (need([...text(value)].length <= 1024, "a text of 1024 characters at most"), value);
const maybe = (check) => (value) => (value === null ? null : check(value));
const isMap = (value) => value !== null && Object.getPrototypeOf(value) === Object.prototype;

/** An array of what `check` takes. */
const list = (check, most = MOST) => (value) => {
  need(Array.isArray(value) && value.length <= most, `an array of ${most} at most`);
  return value.map(check);
};
const texts = (value) => {
  need(isMap(value) && Object.keys(value).length <= 1024, "a map of 1024 texts at most");
  for (const each of Object.values(value)) text(each);
  return value;
};
/** An array with a place for each check, of which the last ones have defaults; what is beyond is ignored. */
const struct = (...fields) => (value) => {
  need(Array.isArray(value), "an array");
  return fields.map(([check, ...byDefault], at) => {
    if (at < value.length) return check(value[at]);
    need(byDefault.length, "an element that is missing");
    return byDefault[0];
  });
};
/** A map with keys that may be there; others are ignored. */
const options = (fields) => (value) => {
  need(isMap(value), "a map");
  const known = Object.entries(fields).filter(([key]) => key in value);
  return Object.fromEntries(known.map(([key, check]) => [key, check(value[key])]));
};

const LIMITS = [268435456, 65536, 0, WINDOW];
const limits = struct(...LIMITS.map((byDefault) => [nat, byDefault]));
const greeting = [[identity], [int, 0], [text, ""], [text, ""], [number, 0], [limits, LIMITS], [texts, {}]];
const blob = struct([nat], [text], [text, ""], [list(nat), []]);
const callOptions = options({
  t: number, m: texts, l: int, w: bool, r: nat, p: list(struct([nat], [text]), 256), b: list(blob),
});
const replyOptions = options({ m: texts, b: list(blob), o: nat });

const BODIES = {
  [KIND.HELLO]: struct(...greeting),
  [KIND.WELCOME]: struct(...greeting, [nat, 0]),
  [KIND.REJECT]: struct([list(nat, 256)], [int], [text, ""]),
  [KIND.CALLS]: struct(
    [list(struct([nat], [list(int)], [any], [maybe(callOptions), null]))],
    [list(struct([name], [nat], [nat], [name]))],
  ),
  [KIND.REPLIES]: struct([list(struct([list(int)], [list(any)], [int, 0], [maybe(replyOptions), null]))]),
  [KIND.CANCEL]: struct([list(struct([nat], [bool]))]),
  [KIND.BYE]: struct([int, 0], [text, ""], [maybe(nat), null]),
  [KIND.PIPE]: struct([list(struct([nat], [nat], [bool], [bytes]))]),
  [KIND.CREDIT]: struct([list(struct([nat], [nat], [nat]))]),
};

/** Read a message. Returns { kind, body, blobs }, the body with all defaults; throws Garbage. */
export function decode(frames) {
  const [head, ...blobs] = frames;
  if (head.length < 2 || head[0] !== MAGIC[0] || head[1] !== MAGIC[1]) throw new Garbage("not a message of this protocol", false);
  const [version, kind] = [head[2], head[3]];
  need(head.length > 4, "a body is missing");
  need(version === 1 || kind === KIND.REJECT, `version ${version} is unknown`);
  const read = BODIES[kind];
  need(read, `kind ${kind} is unknown`);
  let body;
  try {
    body = read(unpack(head.subarray(4)));
  } catch (error) {
    if (error instanceof Garbage) throw new Garbage(`the body is wrong: ${error.message} was expected`);
    throw new Garbage(`the body is no MessagePack: ${error.message}`);
  }
  if (kind === KIND.CALLS || kind === KIND.REPLIES) checkGroups(kind, body, blobs.length);
  else need(!blobs.length, "frames beyond the first");
  return { kind, body, blobs };
}

/** What the types cannot say of groups. */
function checkGroups(kind, [groups, targets], blobs) {
  const ids = [];
  let described = 0;
  for (const group of groups) {
    const own = kind === KIND.CALLS ? group[1] : group[0];
    need(own.length, "a group of none");
    if (kind === KIND.CALLS) need(group[0] < targets.length, "a target that is not there");
    else need(group[1].length === own.length, "not as many values as numbers");
    described += group[3]?.b?.length ?? 0;
    ids.push(...own);
  }
  need(ids.length && ids.length <= MOST, "one call at least");
  need(new Set(ids).size === ids.length, "a number twice");
  need(described === blobs && blobs <= 256, "not as many blobs as descriptors");
  need(!blobs || ids.length === 1, "what has blobs must travel alone");
}

/** Put blobs in their places: `values` are arguments, or a result and outputs. Throws if they do not fit. */
export function restore(values, descriptors, blobs) {
  const all = [...values];
  const seen = new Set();
  descriptors.forEach(([position, kind, dtype, shape], at) => {
    if (position >= all.length || seen.has(position)) throw new Error(`no place ${position} for a blob`);
    seen.add(position);
    if (kind === "b") all[position] = blobs[at];
    else if (kind === "a") all[position] = typed(blobs[at], dtype, shape);
    else throw new Error(`unknown kind of blob ${kind}`);
  });
  return all;
}

const ARRAYS = {
  "<f8": Float64Array, "<f4": Float32Array, "<i4": Int32Array, "<u4": Uint32Array, "<i2": Int16Array, "<u2": Uint16Array,
  "|i1": Int8Array, "|u1": Uint8Array, "<i8": BigInt64Array, "<u8": BigUint64Array,
};

/** An array of numbers, with its shape. */
function typed(blob, dtype, shape) {
  const Type = ARRAYS[dtype];
  const items = shape.reduce((product, extent) => product * extent, 1);
  if (!Type || shape.length > 64) throw new Error(`arrays of ${dtype} are not read here`);
  if (items * Type.BYTES_PER_ELEMENT !== blob.length) throw new Error(`${blob.length} bytes do not fill ${shape} of ${dtype}`);
  return Object.assign(new Type(new Uint8Array(blob).buffer), { shape });
}

/** Whether a value goes out of band: arrays of numbers have to, long byte strings do better to. */
const isApart = (value) => ArrayBuffer.isView(value) && (!(value instanceof Uint8Array) || value.length >= 65536);

/** The descriptor of such a value, and its blob. */
function describe(position, value) {
  if (value instanceof Uint8Array) return [[position, "b"], value];
  const dtype = Object.keys(ARRAYS).find((key) => value instanceof ARRAYS[key]);
  const blob = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return [[position, "a", dtype, value.shape ?? [value.length]], blob];
}

/** Split values that are to go out of band: returns the others, with null in the places, descriptors and blobs. */
export function split(values) {
  const apart = values.flatMap((value, at) => (isApart(value) ? [describe(at, value)] : []));
  const rest = values.map((value) => (isApart(value) ? null : value));
  return [rest, apart.map(([descriptor]) => descriptor), apart.map(([, blob]) => blob)];
}
