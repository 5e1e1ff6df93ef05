// The QoS 1 and 2 filters of all sessions, connected or not. What matches one is queued for the session; all other telemetry
// need not be looked at twice.

import { Qlobber } from "qlobber";

/** MQTT's topic filters, for qlobber. */
export const filterSyntax = {
  separator: "/",
  wildcard_one: "+",
  wildcard_some: "#",
  match_empty_levels: true, // [MQTT-4.7.1-3]
} as const;

export const hasWildcard = (filter: string): boolean => /[+#]/.test(filter);

/** A filter that begins with a wildcard does not match a topic that begins with $ [MQTT-4.7.2-1]. */
export const isHidden = (topic: string, filter: string): boolean =>
  topic.startsWith("$") && (filter.startsWith("#") || filter.startsWith("+"));

export class KeptFilters {
  /** Called with a filter that came, or whose last session went. */
  onChange: (filter: string) => void = () => {};
  readonly #byClient = new Map<string, Set<string>>();
  /** How many sessions have the filter. */
  readonly #counts = new Map<string, number>();
  readonly #filters = new Qlobber<string>(filterSyntax);

  get isEmpty(): boolean {
    return this.#counts.size === 0;
  }

  matches(topic: string): boolean {
    if (this.isEmpty) return false;
    return this.#filters.match(topic).some((filter) => !isHidden(topic, filter));
  }

  set(clientId: string, filter: string, qos: number): void {
    const own = this.#byClient.get(clientId);
    if (qos === 0) {
      this.#delete(clientId, own, filter);
      return;
    }
    if (own === undefined) this.#byClient.set(clientId, new Set([filter]));
    else if (own.has(filter)) return;
    else own.add(filter);
    const count = this.#counts.get(filter) ?? 0;
    this.#counts.set(filter, count + 1);
    if (count > 0) return;
    this.#filters.add(filter, filter);
    this.onChange(filter);
  }

  delete(clientId: string, filters: Iterable<string>): void {
    const own = this.#byClient.get(clientId);
    for (const filter of filters) this.#delete(clientId, own, filter);
  }

  deleteAll(clientId: string): void {
    this.delete(clientId, [...(this.#byClient.get(clientId) ?? [])]);
  }

  #delete(clientId: string, own: Set<string> | undefined, filter: string): void {
    if (own?.delete(filter) !== true) return;
    if (own.size === 0) this.#byClient.delete(clientId);
    const left = (this.#counts.get(filter) ?? 1) - 1;
    if (left > 0) {
      this.#counts.set(filter, left);
      return;
    }
    this.#counts.delete(filter);
    this.#filters.remove(filter, filter);
    this.onChange(filter);
  }
}
