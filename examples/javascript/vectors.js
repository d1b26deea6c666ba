// Runs the vectors on this example's reader, on its server and on its client.
//     node vectors.js ../../transport/vectors.json

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Dealer, Router } from "zeromq";
import { Client } from "./client.js";
import { serve } from "./server.js";
import { Garbage, KIND, decode, encode, unpack } from "./wire.js";

const { vectors } = JSON.parse(readFileSync(process.argv[2] ?? "../../transport/vectors.json", "utf8"));
const frames = (vector) => vector.frames.map((frame) => Buffer.from(frame, "hex"));
const named = (to, name) => frames(vectors.find((vector) => vector.to === to && vector.name === name));
const hello = named("server", "hello");
const welcome = named("client", "welcome");
const probeOfEnd = encode(KIND.CALLS, [[[0, [999], [[1]]]], [["vectors.Echo", 1, 2, "echo"]]]);

/** Compare what was read with what the file says; bytes are told by their digits, also where they are decoded here. */
function same(found, wanted) {
  if (wanted !== null && typeof wanted === "object" && Object.keys(wanted).join() === "hex") {
    const bytes = Buffer.from(wanted.hex, "hex");
    if (found instanceof Uint8Array && bytes.equals(found)) return;
    return assert.deepEqual(found, unpack(bytes));
  }
  if (Array.isArray(wanted)) {
    assert.equal(found.length, wanted.length);
    return wanted.forEach((each, at) => same(found[at], each));
  }
  if (wanted !== null && typeof wanted === "object") {
    const known = Object.entries(found).filter(([key, value]) => !["w", "r", "o"].includes(key) || value);
    assert.deepEqual(known.map(([key]) => key).sort(), Object.keys(wanted).sort());
    return known.forEach(([key, value]) => same(value, wanted[key]));
  }
  assert.equal(found, wanted);
}

const hear = async (socket) => {
  const got = await socket.receive();
  return decode(socket instanceof Router ? got.slice(1) : got);
};

/** Have what was sent before be dealt with: a call is answered after it. Returns statuses by number. */
async function answers(socket, count) {
  const found = new Map();
  while (found.size < count) {
    const { kind, body } = await hear(socket);
    assert.equal(kind, KIND.REPLIES);
    for (const [ids, , status] of body[0]) for (const id of ids) found.set(id, status);
  }
  return found;
}

async function onServer(vector, endpoint) {
  const socket = new Dealer({ linger: 0, receiveTimeout: 20000 });
  socket.connect(endpoint);
  const greet = async () => {
    await socket.send(hello);
    assert.equal((await hear(socket)).kind, KIND.WELCOME);
  };
  if (vector.state !== "fresh") await greet();
  if (vector.state === "rejected") {
    await socket.send("CP");
    assert.equal((await hear(socket)).kind, KIND.REJECT);
  }
  await socket.send(frames(vector));
  const { consequence } = vector;
  if (consequence === "rejected") {
    const { kind, body } = await hear(socket);
    assert.deepEqual([kind, body[0], body[1]], [KIND.REJECT, [1], 1728]);
  } else if (consequence === "welcomed") assert.equal((await hear(socket)).kind, KIND.WELCOME);
  else if (vector.answers) {
    assert.deepEqual(await answers(socket, vector.answers.length), new Map(vector.answers));
  }
  if (consequence === "rejected" || (consequence === "dropped" && vector.state !== "open")) await greet();
  if (consequence !== "ends") {
    await socket.send(probeOfEnd);
    assert.equal((await answers(socket, 1)).get(999), 0);
  }
  socket.close();
}

async function onClient(vector) {
  const socket = new Router({ linger: 0, receiveTimeout: 20000 });
  await socket.bind("tcp://127.0.0.1:*");
  const client = new Client(socket.lastEndpoint, { probe: 60000 });
  const begun = client.call(["vectors.Echo", 1, 2, "echo"], ["x"]).then((value) => [0, value], (error) => [error.status]);
  const [peer, ...greeting] = await socket.receive();
  assert.equal(decode(greeting).kind, KIND.HELLO);
  const send = (what) => socket.send([peer, ...what]);
  const heard = async (kind) => assert.equal((await hear(socket)).kind, kind);
  if (vector.state !== "greeted") {
    await send(welcome);
    await heard(KIND.CALLS);
  }
  if (vector.state === "rejected") {
    await send(encode(KIND.REJECT, [[1], 1728]));
    await heard(KIND.HELLO);
  }
  await send(frames(vector));
  const { consequence } = vector;
  if (consequence === "ends" && vector.name === "a refusal by a later version") assert.equal((await begun)[0], 1728);
  else if (consequence === "ends") {
    await heard(KIND.HELLO);
    await send(welcome);
    if (vector.state === "open") assert.ok([1726, 1727].includes((await begun)[0]));
    else await heard(KIND.CALLS);
  } else if (vector.state !== "rejected") {
    if (vector.state === "greeted") {
      if (consequence === "dropped") await send(welcome);
      await heard(KIND.CALLS);
    }
    await send(encode(KIND.REPLIES, [[[[1], ["served"]]]]));
    const [status, value] = await begun;
    if (consequence === "dropped") {
      assert.deepEqual([status, value], [0, "served"]);
      assert.equal(client.garbage, 1);
    } else assert.equal(client.garbage, 0);
  }
  await client.close();
  await begun;
  socket.close();
}

const server = await serve("tcp://127.0.0.1:*");
for (const vector of vectors) {
  try {
    if (vector.meaning) same(decode(frames(vector)).body, vector.meaning);
    if (vector.to === "server") await onServer(vector, server.endpoint);
    else await onClient(vector);
  } catch (error) {
    error.message = `${vector.to}: ${vector.name}: ${error.message}`;
    throw error;
  }
}
await server.close();
console.log(`${vectors.length} vectors`);
