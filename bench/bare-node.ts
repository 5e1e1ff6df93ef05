// The floor of `sparse`: what Node's sockets cost by themselves. It answers CONNECT with CONNACK and each QoS 1 PUBLISH with its
// PUBACK at once, one write for each chunk, and does nothing else: it checks nothing, keeps nothing and expects whole packets.
// A child process of the benchmark: sends its port to the parent, runs until it is killed.

import { createServer, type AddressInfo } from "node:net";

const CONNECT = 0x10;
const connack = Buffer.from([0x20, 2, 0, 0]);

const server = createServer({ noDelay: true }, (socket) => {
  let rest: Buffer = Buffer.alloc(0);
  socket.on("data", (data) => {
    const chunk = rest.length === 0 ? data : Buffer.concat([rest, data]);
    const answers: number[] = [];
    let at = 0;
    for (let end = endOf(chunk, at); end <= chunk.length; end = endOf(chunk, at)) {
      if (chunk[at] === CONNECT) socket.write(connack);
      else pushPuback(answers, chunk, at);
      at = end;
    }
    rest = chunk.subarray(at);
    if (answers.length > 0) socket.write(Buffer.from(answers));
  });
  socket.on("error", () => {});
});

/** Behind the packet that begins at `at`; Infinity while its header is not there. */
function endOf(chunk: Buffer, at: number): number {
  const low = chunk[at + 1];
  const high = chunk[at + 2];
  if (low === undefined || (low >= 0x80 && high === undefined)) return Infinity;
  return low < 0x80 ? at + 2 + low : at + 3 + (low & 0x7f) + ((high ?? 0) << 7);
}

function pushPuback(answers: number[], chunk: Buffer, at: number): void {
  if ((chunk[at] ?? 0) >> 4 !== 3) return;
  const topicAt = at + ((chunk[at + 1] ?? 0) < 0x80 ? 2 : 3);
  const idAt = topicAt + 2 + chunk.readUInt16BE(topicAt);
  answers.push(0x40, 2, chunk[idAt] ?? 0, chunk[idAt + 1] ?? 0);
}

server.listen(0, "127.0.0.1", 4096, () => {
  process.send?.({ port: (server.address() as AddressInfo).port });
});
process.on("disconnect", () => process.exit(0));
