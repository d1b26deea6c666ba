// A server: one ROUTER socket. Interfaces are objects of functions; see the end of this file.

import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { pathToFileURL } from "node:url";
import { Router } from "zeromq";
import { Garbage, KIND, STATUS, WINDOW, decode, encode, pack, restore, split, unpack } from "./wire.js";

/** Thrown by a routine, it ends its call with that status. */
export class Abort extends Error {
  constructor(status, text = "") {
    super(text);
    this.status = status;
  }
}

/** An operation with more than arguments: `pipes` as in the protocol, [position, direction], and how many `outputs`. */
export const operation = (run, { pipes = [], outputs = 0, check = null } = {}) => Object.assign(run, { pipes, outputs, check });

export class Server {
  // Mandatory: sending tells if a client is gone. A server for strangers would bound what waits for one of them.
  #socket = new Router({
    mandatory: true, sendHighWaterMark: 0, sendTimeout: 0, linger: 1000, heartbeatInterval: 5000, heartbeatTimeout: 15000,
  });
  #instance = randomBytes(16);
  #interfaces = new Map();
  #peers = new Map(); // routing id in hex -> peer
  #sending = Promise.resolve();
  #closing = false;
  garbage = 0;

  /** Serve an interface: functions by the names of operations. Each gets its arguments, then the call. */
  register(name, [major, minor], operations) {
    this.#interfaces.set(name, { major, minor, operations });
  }

  /** Bind; a promise of the endpoint. */
  async listen(endpoint) {
    await this.#socket.bind(endpoint);
    this.#receive();
    return this.#socket.lastEndpoint;
  }

  /** End the conversation with each client, and close. */
  async close() {
    this.#closing = true;
    for (const peer of this.#peers.values()) this.dismiss(peer, STATUS.UNAVAILABLE, "the server closed");
    await this.#sending;
    this.#socket.close();
  }

  /** End the conversation with one client, which may begin another. */
  dismiss(peer, status = 0, reason = "") {
    if (peer.state !== "open") return;
    this.#send(peer, KIND.BYE, [status, reason, peer.taken]);
    this.#runDown(peer, "leaving");
  }

  async #receive() {
    for await (const [id, ...frames] of this.#socket) {
      const key = id.toString("hex");
      const peer = this.#peers.get(key) ?? { id, state: "fresh", calls: new Map(), taken: 0 };
      this.#peers.set(key, peer);
      try {
        this.#take(peer, frames);
      } catch (error) {
        if (!(error instanceof Garbage)) throw error;
        this.garbage++;
        if (error.ours) this.#refuse(peer, error.message);
      }
    }
  }

  #send(peer, kind, body, blobs = []) {
    const frames = [peer.id, ...encode(kind, body, blobs)];
    // A client that is gone: its calls go on, their answers go nowhere.
    this.#sending = this.#sending.then(() => this.#socket.send(frames)).catch(() => this.#gone(peer));
  }

  #gone(peer) {
    this.#runDown(peer, "closed");
    this.#peers.delete(peer.id.toString("hex"));
  }

  #runDown(peer, state) {
    peer.state = state;
    for (const call of peer.calls.values()) call.wake();
  }

  #refuse(peer, reason) {
    if (peer.state !== "fresh" && peer.state !== "open") return; // It was told before.
    this.#runDown(peer, "rejected");
    this.#send(peer, KIND.REJECT, [[1], STATUS.PROTOCOL, reason]);
  }

  #take(peer, frames) {
    const stranger = peer.state !== "open";
    const size = frames.reduce((sum, frame) => sum + frame.length, 0);
    if (stranger && size > 65536) throw new Garbage("larger than a greeting", frames[0].subarray(0, 2).toString() === "CP");
    const { kind, body, blobs } = decode(frames);
    if (stranger) {
      if (kind !== KIND.HELLO || peer.state === "closed") throw new Garbage("it is no greeting");
      return this.#greet(peer, body);
    }
    if (kind === KIND.CALLS) {
      peer.taken++;
      const [groups, targets] = body;
      for (const [target, ids, args, options] of groups) this.#begin(peer, targets[target], ids, args, options ?? {}, blobs);
    } else if (kind === KIND.CANCEL) {
      for (const [id, abort] of body[0]) {
        const call = peer.calls.get(id);
        if (!call) continue;
        call.cancelled = true;
        call.aborted ||= abort;
        if (abort) call.wake();
      }
    } else if (kind === KIND.PIPE) {
      for (const [id, pipe, end, elements] of body[0]) this.#elements(peer.calls.get(id), pipe, end, elements);
    } else if (kind === KIND.CREDIT) {
      for (const [id, pipe, grant] of body[0]) {
        const out = peer.calls.get(id)?.pipes[pipe];
        if (!out) continue;
        out.window += grant;
        peer.calls.get(id).wake();
      }
    } else if (kind === KIND.BYE) this.#gone(peer);
    else if (kind === KIND.HELLO) this.garbage++; // One too many.
    else throw new Garbage("it is out of turn");
  }

  #greet(peer, [association, , , , , limits]) {
    if (this.#closing) {
      peer.state = "rejected";
      return this.#send(peer, KIND.REJECT, [[1], STATUS.UNAVAILABLE, "the server is closing"]);
    }
    Object.assign(peer, { state: "open", taken: 0, association, window: limits[3] || Infinity });
    const own = [268435456, 65536, 0, WINDOW];
    this.#send(peer, KIND.WELCOME, [this.#instance, process.pid, hostname(), "javascript example 1.0", 5, own, {}, 1 << 20]);
  }

  #begin(peer, [name, major, minor, operation], ids, args, options, blobs) {
    const found = this.#interfaces.get(name);
    const fits = found && ((!major && !minor) || (major === found.major && minor <= found.minor));
    const run = fits && Object.hasOwn(found.operations, operation) ? found.operations[operation] : null;
    let refusal = null;
    if (!fits) refusal = [STATUS.UNKNOWN_INTERFACE, `${name} ${major}.${minor} is not served`];
    else if (!run) refusal = [STATUS.UNKNOWN_OPERATION, `${name} has no ${operation}`];
    else if (!Array.isArray(args) || args.length !== ids.length) refusal = [STATUS.BAD_DATA, "not as many arguments as calls"];
    ids.forEach((id, at) => {
      if (peer.calls.has(id)) return void this.garbage++;
      const call = new Call(peer, id, options, run, (...what) => this.#send(peer, ...what));
      peer.calls.set(id, call);
      call.run(refusal, refusal ? [] : args[at], blobs);
    });
  }

  #elements(call, pipe, end, elements) {
    const into = call?.pipes[pipe];
    if (!call) return;
    if (!into || into.direction === "o" || into.finished || (elements.length && into.allowance <= 0)) {
      return call.end(STATUS.PROTOCOL, ["", "a chunk that may not be"]);
    }
    into.allowance -= elements.length;
    into.chunks.push({ elements, end });
    into.finished = end;
    call.wake();
  }
}

/** One call. Routines get it after their arguments. */
class Call {
  #send;
  #woken = [];
  cancelled = false;
  aborted = false;
  metadata = {}; // of the reply
  outputs = [];

  constructor(peer, id, options, operation, send) {
    Object.assign(this, { peer, id, options, operation });
    this.#send = send;
    this.pipes = (operation?.pipes ?? []).map(([, direction]) => ({
      direction, chunks: [], allowance: WINDOW, finished: false, drained: false, window: peer.window, ended: false,
    }));
  }

  /** Whether nobody waits for it any more. */
  get over() {
    return this.peer.calls.get(this.id) !== this || this.peer.state !== "open" || this.aborted;
  }

  wake() {
    for (const wake of this.#woken.splice(0)) wake();
  }

  /** Wait until there is something to look at again; throws once nobody waits for the call. */
  async #moved() {
    if (this.over) throw new Abort(STATUS.CANCELLED, "the client has given the call up");
    await new Promise((resolve) => this.#woken.push(resolve));
    if (this.over) throw new Abort(STATUS.CANCELLED, "the client has given the call up");
  }

  /** The elements of a pipe that the client pushes. */
  async *pull(pipe) {
    const from = this.pipes[pipe];
    while (!from.drained) {
      while (!from.chunks.length) await this.#moved();
      const { elements, end } = from.chunks.shift();
      from.drained = end;
      if (!elements.length) continue;
      let items;
      try {
        items = unpack(elements);
        if (!Array.isArray(items)) throw new Error("the elements are no array");
      } catch (error) {
        throw new Abort(STATUS.BAD_DATA, error.message);
      }
      yield* items;
      from.allowance += elements.length;
      if (!end) this.#send(KIND.CREDIT, [[[this.id, pipe, elements.length]]]);
    }
  }

  /** Push elements; without any, the pipe ends. */
  async push(pipe, elements) {
    const into = this.pipes[pipe];
    if (!elements.length) into.ended = true;
    while (elements.length && into.window <= 0) await this.#moved();
    const packed = elements.length ? pack(elements) : Buffer.alloc(0);
    into.window -= packed.length;
    this.#send(KIND.PIPE, [[[this.id, pipe, into.ended, packed]]]);
  }

  async run(refusal, args, blobs) {
    if (refusal) return this.end(refusal[0], ["", refusal[1]]);
    const { t, p = [], b = [] } = this.options;
    if (t <= 0) return this.end(STATUS.CANCELLED, ["CallTimeout", "the time ran out before it was begun"]);
    const wanted = this.operation.pipes ?? [];
    try {
      if (!Array.isArray(args)) throw new Error("arguments are an array");
      if (JSON.stringify(p.map(([at, way]) => [at, way])) !== JSON.stringify(wanted) && wanted.length) throw new Error("other pipes");
      args = restore(args, b, blobs);
      if (this.operation.check && !this.operation.check(...args)) throw new Error("arguments of other types");
    } catch (error) {
      return this.end(STATUS.BAD_DATA, ["", error.message]);
    }
    try {
      const value = await this.operation(...args, this);
      const undone = this.pipes.some((pipe) => (pipe.direction !== "i" && !pipe.ended) || (pipe.direction !== "o" && !pipe.drained));
      if (undone) this.end(STATUS.DISCIPLINE, ["", "a pipe did not come to its end"]);
      else this.end(0, value ?? null);
    } catch (error) {
      this.end(error.status ?? STATUS.EXCEPTION, [error.name, error.message]);
    }
  }

  /** Answer, once. */
  end(status, value) {
    if (this.peer.calls.get(this.id) !== this) return;
    this.peer.calls.delete(this.id);
    this.wake();
    if (this.options.w || (this.peer.state !== "open" && this.peer.state !== "rejected")) return;
    const options = Object.keys(this.metadata).length ? { m: this.metadata } : {};
    const [parts, descriptors, blobs] = split(status ? [value] : [value, ...this.outputs]);
    if (descriptors.length) options.b = descriptors;
    if (!status && this.operation?.outputs) options.o = this.operation.outputs;
    const whole = options.o ? parts : parts[0];
    this.#send(KIND.REPLIES, [[[[this.id], [whole], status, options]]], blobs);
  }
}

/** What the example serves: the thesaurus of the page, the interface that the vectors call, and some more. */
export async function serve(endpoint) {
  const server = new Server();
  const words = { quick: ["fast", "swift"] };
  server.register("demo.Thesaurus", [1, 0], {
    synonyms(word, most) {
      if (!words[word]) throw Object.assign(new Error(`'${word}'`), { name: "KeyError" });
      return words[word].slice(0, most);
    },
    count: () => Object.keys(words).length,
  });
  const total = async (numbers, call) => {
    let sum = 0;
    for await (const each of call.pull(0)) sum += each;
    return sum;
  };
  const upTo = async (count, numbers, call) => {
    for (let at = 0; at < count; at += 100) {
      await call.push(0, Array.from({ length: Math.min(100, count - at) }, (_, n) => at + n));
    }
    await call.push(0, []);
    return count;
  };
  const grab = (size, call) => {
    call.outputs = [Buffer.alloc(size, "x")];
    return size;
  };
  server.register("vectors.Echo", [1, 2], {
    echo: operation((value) => value, { check: (...args) => args.length === 1 }), // What comes next is the call.
    add: operation((left, right) => left + (typeof right === "number" ? right : 10), {
      check: (...args) => args.length >= 1 && args.length <= 2 && args.every(Number.isInteger),
    }),
    total: operation(total, { pipes: [[0, "i"]] }),
  });
  server.register("example.More", [1, 0], {
    up_to: operation(upTo, { pipes: [[1, "o"]] }),
    grab: operation(grab, { outputs: 1 }),
    fail() {
      throw new Abort(4711, "on purpose");
    },
    async wait(call) {
      while (!call.cancelled && !call.over) await new Promise((resolve) => setTimeout(resolve, 5));
      return "told";
    },
    metadata(call) {
      call.metadata = { seen: JSON.stringify(call.options.m ?? {}) };
    },
  });
  server.endpoint = await server.listen(endpoint);
  return server;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const server = await serve(process.argv[2] ?? "tcp://127.0.0.1:5555");
  console.log(server.endpoint);
  process.stdin.on("end", () => server.close()).resume(); // It ends with its input.
}
