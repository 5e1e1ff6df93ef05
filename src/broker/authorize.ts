// What a client may do, beyond what MQTT itself forbids.

/** The gateway's own topics: clients read them but do not publish there. */
export const isReservedTopic = (topic: string): boolean =>
  topic.startsWith("$SYS/") || topic.startsWith("sluice/") || topic === "$SYS" || topic === "sluice";

/** The topic on which a rejected message is shown. A device id from a client id may hold any character. */
export const rejectedTopic = (stream: string, deviceId: string): string =>
  `sluice/rejected/${stream}/${deviceId.replaceAll(/[/+#%\p{Cc}]/gu, encodeURIComponent)}`;
