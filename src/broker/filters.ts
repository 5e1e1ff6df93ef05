// Topic filters, beyond what a single packet's check says of them.

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
