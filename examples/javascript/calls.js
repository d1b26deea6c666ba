// Calls each operation of `example.More` and `vectors.Echo` in many ways, and checks what comes: its server may be this
// folder's, or any other one.
//     node calls.js tcp://127.0.0.1:5555

import assert from "node:assert/strict";
import { Client } from "./client.js";
import { STATUS } from "./wire.js";

const echo = ["vectors.Echo", 1, 2, "echo"];
const more = (operation) => ["example.More", 1, 0, operation];
const status = (promise) => promise.then(() => 0, (error) => error.status);

const client = new Client(process.argv[2], { probe: 200 });
assert.equal(await client.call(echo, ["quick"]), "quick");
assert.deepEqual(await client.call(echo, [[1, { a: null }, "é", Buffer.from("b")]]), [1, { a: null }, "é", Buffer.from("b")]);
assert.equal(await client.call(["vectors.Echo", 0, 0, "add"], [1]), 11);

const many = await Promise.all(Array.from({ length: 2000 }, (_, n) => client.call(echo, [n])));
assert.deepEqual(many, Array.from({ length: 2000 }, (_, n) => n));

const numbers = Object.assign(Int32Array.from([1, 2, 3, 4, 5, 6]), { shape: [2, 3] });
const back = await client.call(echo, [numbers]);
assert.deepEqual([[...back], back.shape], [[1, 2, 3, 4, 5, 6], [2, 3]]);
const large = Buffer.alloc(5 << 20, "x");
assert.equal(Buffer.compare(await client.call(echo, [large]), large), 0);

assert.equal(await status(client.call(["no.such", 1, 0, "x"])), STATUS.UNKNOWN_INTERFACE);
assert.equal(await status(client.call(more("none"))), STATUS.UNKNOWN_OPERATION);
assert.equal(await status(client.call(["vectors.Echo", 1, 2, "add"], ["x"])), STATUS.BAD_DATA);
assert.equal(await status(client.call(more("fail"))), 4711);

const sum = client.call(["vectors.Echo", 1, 2, "total"], [null], { pipes: [[0, "i"]] });
let total = 0;
for (let at = 0; at < 300; at++) {
  const some = Array.from({ length: 1000 }, (_, n) => at + n);
  total += some.reduce((one, other) => one + other);
  sum.push(0, some);
}
sum.push(0, [], true);
assert.equal(await sum, total);

const got = [];
const options = { pipes: [[1, "o"]], onElements: (_, elements) => got.push(...elements) };
assert.equal(await client.call(more("up_to"), [300000, null], options), 300000);
assert.deepEqual([got.length, got[0], got.at(-1)], [300000, 0, 299999]);

const [result, frame] = await client.call(more("grab"), [3]);
assert.deepEqual([result, Buffer.from(frame).toString()], [3, "xxx"]);

const waiting = client.call(more("wait"));
await client.call(echo, [0]);
waiting.cancel(false);
assert.equal(await waiting, "told");
const given = client.call(more("wait"));
await client.call(echo, [0]);
given.cancel();
assert.equal(await status(given), STATUS.CANCELLED);
assert.equal(await status(client.call(more("wait"), [], { options: { t: 0.05 } })), STATUS.CANCELLED);
await client.call(more("metadata"), [], { options: { m: { trace: "1" } } });

console.log("checked");
if (process.argv[3] === "again") {
  // The server is replaced meanwhile: a call fails, or not, and later ones are served.
  process.stdin.resume();
  await new Promise((resolve) => process.stdin.once("data", resolve));
  for (;;) {
    try {
      assert.equal(await client.call(echo, ["again"]), "again");
      break;
    } catch (error) {
      assert.ok([STATUS.UNAVAILABLE, STATUS.FAILED, STATUS.FAILED_DNE].includes(error.status), error);
    }
  }
  console.log("again");
  process.stdin.pause();
}
await client.close();
