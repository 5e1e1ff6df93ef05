// Where a listener really listens: without credentials on loopback only (P8).

import { isLoopback, type ListenerConfig } from "./schema.ts";

export interface ListenHost {
  readonly host: string;
  /** Why it is not the host that was asked for. */
  readonly note: string | undefined;
}

/** With credentials all addresses unless a host is given; without them never more than loopback. */
export function listenHost({ host }: Pick<ListenerConfig, "host">, hasCredentials: boolean): ListenHost {
  if (host !== undefined && (hasCredentials || isLoopback(host))) return { host, note: undefined };
  if (hasCredentials) return { host: "0.0.0.0", note: undefined };
  const asked = host === undefined ? "" : ` instead of ${host}`;
  return { host: "127.0.0.1", note: `loopback only${asked}, because no credentials are configured` };
}
