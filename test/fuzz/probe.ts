// Loaded into the gateway's process before it: on SIGUSR2 it collects garbage and tells on standard output what is left.

import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { isMainThread } from "node:worker_threads";

export const probed = "probed";

const count = (kind: string): number => process.getActiveResourcesInfo().filter((name) => name === kind).length;

if (isMainThread) {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  process.on("SIGUSR2", () => {
    collect();
    collect();
    const { rss, heapUsed, external, arrayBuffers } = process.memoryUsage();
    const [sockets, timers] = [count("TCPSocketWrap"), count("Timeout")];
    console.log(JSON.stringify({ msg: probed, rss, heapUsed, external, arrayBuffers, sockets, timers }));
  });
}
