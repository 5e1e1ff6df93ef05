// Where to look for what was acknowledged: a sink, or the inbox of rejected messages.

import { InvalidArgumentError, Option } from "commander";
import { duration } from "../arguments.ts";

export type Target =
  | { readonly kind: "sqlite"; readonly name: string; readonly path: string }
  | { readonly kind: "ndjson"; readonly name: string; readonly path: string }
  | { readonly kind: "rejects"; readonly name: string; readonly path: string }
  | { readonly kind: "postgres"; readonly name: string; readonly url: string }
  | { readonly kind: "nats"; readonly name: string; readonly url: URL; readonly stream: string };

export const TARGETS = "sqlite:FILE, postgres://…, nats://HOST:PORT?stream=NAME, ndjson:FILE or FOLDER, rejects:FILE";

/** Undefined: it is none. `name` is how to call it: without a password. */
export function parseTarget(text: string): Target | undefined {
  const [, kind, path = ""] = /^(sqlite|ndjson|rejects):(.+)$/s.exec(text) ?? [];
  if (kind !== undefined) return { kind: kind as "sqlite" | "ndjson" | "rejects", name: text, path };
  const url = URL.parse(text.replace(/^(?:postgres:|nats:)(?=\w+:\/\/)/, ""));
  if (url === null || url.hostname === "") return undefined;
  const name = new URL(url);
  name.password = "";
  if (/^postgres(?:ql)?:$/.test(url.protocol)) return { kind: "postgres", name: name.href, url: url.href };
  const stream = url.searchParams.get("stream");
  if (!/^(?:nats|tls):$/.test(url.protocol) || stream === null) return undefined;
  return { kind: "nats", name: name.href, url, stream };
}

export const verifyWait = (): Option =>
  new Option("--verify-wait <time>", "how long a sink may bring nothing new before what is missing counts as lost")
    .argParser(duration)
    .default(30_000, "30s");

/** One more; for an option or argument that may be repeated. */
export const targets = (text: string, before: readonly Target[] | undefined): readonly Target[] => {
  const target = parseTarget(text);
  if (target === undefined) throw new InvalidArgumentError(`expected ${TARGETS}.`);
  return [...(before ?? []), target];
};
