// The yardstick: Aedes on a TCP server and nothing else: no validation, no journal, PUBACK at once.
// A child process of the benchmark: sends its port to the parent, runs until it is killed.

import { createServer, type AddressInfo } from "node:net";
import { Aedes } from "aedes";

const broker = await Aedes.createBroker();
const server = createServer((socket) => broker.handle(socket));
server.listen(0, "127.0.0.1", () => {
  process.send?.({ port: (server.address() as AddressInfo).port });
});
process.on("disconnect", () => process.exit(0));
