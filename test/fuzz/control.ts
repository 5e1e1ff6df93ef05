// The device that must be served whatever others do: it publishes one QoS 1 message after the other, and sees $SYS.

import mqtt from "mqtt";

const reading = (seq: number): string => JSON.stringify({ ts: Date.now(), seq, metrics: { temperature: 21.5 } });

export interface Control extends AsyncDisposable {
  /** Messages that were acknowledged. */
  readonly acknowledged: number;
  /** Messages of the $SYS tree. */
  readonly heard: number;
  /** The longest wait for a PUBACK. */
  readonly worstMs: number;
  /** Resolves when it is disposed; rejects when a PUBACK does not come within `patienceMs`, or the connection ends. */
  readonly served: Promise<void>;
}

export async function openControl(port: number, clientId: string, patienceMs: number): Promise<Control> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, {
    clientId,
    reconnectPeriod: 0,
    protocolVersion: 5,
  });
  let [acknowledged, heard, worstMs] = [0, 0, 0];
  const stop = new AbortController();
  client.on("message", () => {
    heard += 1;
  });
  await client.subscribeAsync("$SYS/broker/#");
  const ended = new Promise<never>((_resolve, reject) => {
    client.on("close", () => reject(new Error("the control device lost its connection")));
  });
  const publish = async (): Promise<void> => {
    const sinceMs = performance.now();
    const patience = AbortSignal.timeout(patienceMs);
    const tooLate = new Promise<never>((_resolve, reject) => {
      patience.addEventListener("abort", () => reject(new Error(`no PUBACK within ${patienceMs} ms`)));
    });
    tooLate.catch(() => {}); // it comes too late for most
    const options = { qos: 1 } as const;
    await Promise.race([
      client.publishAsync(`devices/${clientId}/telemetry`, reading(acknowledged), options),
      tooLate,
      ended,
    ]);
    acknowledged += 1;
    worstMs = Math.max(worstMs, performance.now() - sinceMs);
  };
  const served = (async () => {
    while (!stop.signal.aborted) await publish();
  })();
  served.catch(() => {}); // told to whoever awaits it
  ended.catch(() => {});
  return {
    get acknowledged() {
      return acknowledged;
    },
    get heard() {
      return heard;
    },
    get worstMs() {
      return worstMs;
    },
    served,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await served.catch(() => {});
      await client.endAsync(true);
    },
  };
}
