// A client: one DEALER socket, no monitor. It waits for the WELCOME, and probes when it hears nothing: section 1 of
// PROTOCOL.md, "What a binding shows of connections".

import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { Dealer } from "zeromq";
import { Garbage, KIND, STATUS, WINDOW, decode, encode, pack, restore, split, unpack } from "./wire.js";

/** What a call ends with if not with a result. `status` says whether it ran: section 11. */
export class CallError extends Error {
  constructor(status, text, type = "", data = null) {
    super(text || type || `status ${status}`);
    Object.assign(this, { status, type, data });
  }
}

export class Client {
  #socket;
  #association = randomBytes(16);
  #state = "greeted";
  #calls = new Map(); // number -> call that has left
  #queue = []; // calls that wait for the WELCOME
  #last = 0;
  #messages = 0; // with calls, since the HELLO
  #limits = []; // of the server: of what it takes
  #bodyLimit = 0;
  #heard = true; // since the last look
  #clock;
  #sending = Promise.resolve();
  garbage = 0;

  /** `probe`: milliseconds of silence after which the server is asked whether it knows this client. */
  constructor(endpoint, { probe = 2000 } = {}) {
    this.#socket = new Dealer({ linger: 1000, heartbeatInterval: 5000, heartbeatTimeout: 15000 });
    this.#socket.connect(endpoint);
    this.#greet();
    this.#receive();
    this.#clock = setInterval(() => this.#look(), probe);
  }

  /**
   * Call an operation; a promise of its result. `target`: [interface, major, minor, operation]. `options` as in the
   * protocol. `pipes`: for each pipe, in order, [position, direction]; `onElements(pipe, elements, end)` gets what the
   * server pushes. The promise has `id`, `push(pipe, elements, end)` and `cancel(abort)`.
   */
  call(target, args = [], { options = {}, pipes = [], onElements = () => {} } = {}) {
    const id = ++this.#last;
    const call = { id, target, options, onElements, message: 0, windows: pipes.map(() => null), waiting: pipes.map(() => []) };
    const [rest, descriptors, blobs] = split(args);
    Object.assign(call, { args: rest, blobs });
    if (descriptors.length) call.options = { ...call.options, b: descriptors };
    if (pipes.length) call.options = { ...call.options, p: pipes };
    const promise = new Promise((resolve, reject) => Object.assign(call, { resolve, reject }));
    if (this.#state === "open") this.#begin(call);
    else this.#queue.push(call);
    promise.id = id;
    promise.push = (pipe, elements, end = false) => {
      call.waiting[pipe].push({ elements, end });
      this.#push(call, pipe);
    };
    promise.cancel = (abort = true) => {
      this.#queue = this.#queue.filter((each) => each !== call);
      if (this.#calls.has(id)) this.#send(KIND.CANCEL, [[[id, abort]]]);
      if (abort) this.#end(call, new CallError(STATUS.CANCELLED, "cancelled"));
    };
    if (options.t !== undefined) {
      call.timer = setTimeout(() => promise.cancel(), options.t * 1000);
    }
    return promise;
  }

  /** Say goodbye, and close. Calls without an answer end with 1818. */
  async close() {
    clearInterval(this.#clock);
    if (this.#state === "open" || this.#state === "greeted") this.#send(KIND.BYE, [0, "the client closed"]);
    this.#state = "leaving";
    for (const call of [...this.#calls.values(), ...this.#queue]) this.#end(call, new CallError(STATUS.CANCELLED, "closed"));
    await this.#sending;
    this.#socket.close();
  }

  #greet() {
    this.#state = "greeted";
    this.#messages = 0;
    const limits = [268435456, 65536, 0, WINDOW];
    this.#send(KIND.HELLO, [this.#association, process.pid, hostname(), "javascript example 1.0", 5, limits, {}]);
  }

  #begin(call) {
    const hasOptions = Object.keys(call.options).length > 0;
    const group = hasOptions ? [0, [call.id], [call.args], call.options] : [0, [call.id], [call.args]];
    const frames = encode(KIND.CALLS, [[group], [call.target]], call.blobs);
    const size = frames.reduce((sum, frame) => sum + frame.length, 0);
    if (size > this.#limits[0] || frames[0].length > this.#bodyLimit) {
      return this.#end(call, new CallError(STATUS.BAD_DATA, "the call is larger than the server takes"));
    }
    call.message = ++this.#messages;
    call.windows.fill(this.#limits[3]);
    this.#calls.set(call.id, call);
    this.#post(frames);
    call.windows.forEach((_, pipe) => this.#push(call, pipe));
  }

  /** Push what there is room for. */
  #push(call, pipe) {
    while (this.#calls.has(call.id) && call.waiting[pipe].length) {
      const { elements, end } = call.waiting[pipe][0];
      if (elements.length && call.windows[pipe] <= 0) return;
      call.waiting[pipe].shift();
      const packed = elements.length ? pack(elements) : Buffer.alloc(0);
      call.windows[pipe] -= packed.length;
      this.#send(KIND.PIPE, [[[call.id, pipe, end, packed]]]);
    }
  }

  #end(call, error, value) {
    clearTimeout(call.timer);
    this.#calls.delete(call.id);
    if (error) call.reject(error);
    else call.resolve(value);
  }

  /** A socket takes one message at a time: they leave in order. */
  #send(kind, body, blobs = []) {
    this.#post(encode(kind, body, blobs));
  }

  #post(frames) {
    this.#sending = this.#sending.then(() => this.#socket.send(frames)).catch(() => {});
  }

  /** Nothing was heard for a while: a server that does not know this client says so. */
  #look() {
    if (!this.#heard && (this.#state === "greeted" || this.#calls.size)) this.#send(KIND.CREDIT, [[]]);
    this.#heard = false;
  }

  async #receive() {
    for await (const frames of this.#socket) {
      this.#heard = true;
      try {
        const message = decode(frames);
        if (!this.#take(message)) throw new Garbage("it is out of turn");
      } catch (error) {
        if (!(error instanceof Garbage)) throw error;
        this.garbage++;
      }
    }
  }

  /** Take a message; false: the state does not allow it. */
  #take({ kind, body, blobs }) {
    const [open, greeted] = [this.#state === "open", this.#state === "greeted"];
    if (this.#state === "leaving") return true;
    if (kind === KIND.WELCOME && greeted) {
      this.#state = "open";
      this.#limits = body[5].map((limit) => limit || Infinity);
      this.#bodyLimit = body[7] || Infinity;
      for (const call of this.#queue.splice(0)) this.#begin(call);
    } else if (kind === KIND.REJECT && (open || greeted)) {
      this.#lose(body[2], null, body[0].includes(1), body[1]);
    } else if (kind === KIND.BYE && (open || greeted)) {
      this.#lose(body[1], body[2], true);
    } else if (kind === KIND.REPLIES && open) {
      for (const group of body[0]) this.#reply(group, blobs);
    } else if (kind === KIND.PIPE && open) {
      for (const [id, pipe, end, elements] of body[0]) this.#elements(id, pipe, end, elements);
    } else if (kind === KIND.CREDIT && open) {
      for (const [id, pipe, size] of body[0]) {
        const call = this.#calls.get(id);
        if (!call || pipe >= call.windows.length) continue;
        call.windows[pipe] += size;
        this.#push(call, pipe);
      }
    } else return false;
    return true;
  }

  #reply([ids, values, status, options], blobs) {
    ids.forEach((id, at) => {
      const call = this.#calls.get(id);
      if (!call) return;
      try {
        if (status) {
          const [type, text, , data] = Array.isArray(values[at]) ? values[at] : [];
          return this.#end(call, new CallError(status, text, type, data));
        }
        const whole = options?.o ? values[at] : [values[at]];
        const parts = restore(whole, options?.b ?? [], blobs);
        this.#end(call, null, options?.o ? parts : parts[0]);
      } catch (error) {
        this.#end(call, new CallError(STATUS.BAD_DATA, error.message));
      }
    });
  }

  #elements(id, pipe, end, elements) {
    const call = this.#calls.get(id);
    if (!call) return;
    try {
      if (pipe >= call.windows.length) throw new Error(`there is no pipe ${pipe}`);
      call.onElements(pipe, elements.length ? unpack(elements) : [], end);
      if (elements.length && !end) this.#send(KIND.CREDIT, [[[id, pipe, elements.length]]]);
    } catch (error) {
      this.#send(KIND.CANCEL, [[[id, true]]]);
      this.#end(call, new CallError(STATUS.PROTOCOL, error.message));
    }
  }

  /** The conversation is over: another one begins at once, or after a refusal after a while. */
  #lose(reason, taken, again, status = 0) {
    const refused = this.#state === "greeted";
    for (const call of this.#calls.values()) {
      const ran = taken === null || call.message <= taken;
      this.#end(call, new CallError(ran ? STATUS.FAILED : STATUS.FAILED_DNE, reason));
    }
    if (!again) {
      this.#state = "rejected";
      for (const call of this.#queue.splice(0)) this.#end(call, new CallError(status, reason));
    } else if (!refused) this.#greet();
    else {
      this.#state = "rejected";
      setTimeout(() => this.#state === "rejected" && this.#greet(), 100);
    }
  }
}
