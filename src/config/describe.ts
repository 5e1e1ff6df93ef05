// What a configuration would run, for `sluice check`. Settings of sinks are not shown: they may hold secrets.

import { listenHost } from "./exposure.ts";
import type { GatewayConfig } from "./schema.ts";

export function describeConfig(config: GatewayConfig): string {
  const { listeners, streams, handlers, sinks, http, journal, credentials } = config;
  const whenFull = journal.whenFull === "hold" ? "devices wait" : "the oldest records go";
  const rows: readonly (readonly [string, string])[] = [
    ["configuration", config.file],
    ...listeners.map((listener) => {
      const { host, note } = listenHost(listener, credentials !== undefined);
      return [
        "listener",
        `${listener.type} ${host}:${listener.port}${note === undefined ? "" : ` (${note})`}`,
      ] as const;
    }),
    [
      "credentials",
      credentials === undefined ? "none: everybody on this machine may connect" : credentials.passwordFile,
    ],
    ...streams.map(
      ({ name, topic, codec }) =>
        [
          "stream",
          `${name} on ${topic}, ${[codec]
            .flat()
            .map((one) => one.name)
            .join(" or ")}`,
        ] as const,
    ),
    ...handlers.map(({ name, stream }) => ["handler", `${name} on ${stream}`] as const),
    ...sinks.map(({ name, type }) => ["sink", name === type ? name : `${name} (${type})`] as const),
    ["http", `http://${http.host}:${http.port}`],
    ["data", `${config.dataDir}, journal of at most ${Math.round(journal.maxBytes / 1024 ** 2)} MiB, then ${whenFull}`],
  ];
  return [
    "The configuration is valid. It would run:",
    ...rows.map(([name, text]) => `  ${name.padEnd(14)}${text}`),
  ].join("\n");
}
