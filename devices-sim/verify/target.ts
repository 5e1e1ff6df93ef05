// Where to look for what was acknowledged: a sink, or the inbox of rejected messages.

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
