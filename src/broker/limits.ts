// The limits of a connection, from the configuration (`limits`, where each has its default, bound and description).

export interface Limits {
  /** A larger packet ends the connection before its body is read. */
  readonly maximumPacketBytes: number;
  /** Time from the network connection to a complete CONNECT. */
  readonly connectTimeoutMs: number;
  readonly maximumConnections: number;
  /** What may wait for one subscriber; beyond it live messages are dropped for that subscriber and counted. */
  readonly subscriberQueueBytes: number;
  /** Unfinished QoS 2 messages per client, and the receive maximum told to MQTT 5 clients. */
  readonly maximumInflightQos2: number;
  readonly maximumTopicLevels: number;
  readonly maximumTopicBytes: number;
  readonly maximumFiltersPerSubscribe: number;
  readonly maximumSubscriptionsPerClient: number;
  readonly retainedMessages: number;
  readonly retainedBytes: number;
  /** Sessions with subscriptions that outlive their connection. */
  readonly sessions: number;
  /** How long at most a session outlives its connection, and the unfinished QoS 2 messages of its client with it. */
  readonly sessionExpiryS: number;
  /** QoS 1 and 2 messages that wait for one session or are in flight to its client. */
  readonly queuedMessagesPerSession: number;
  readonly queuedBytesPerSession: number;
  /** Of all sessions together. */
  readonly queuedBytes: number;
  /** Which message is dropped, and counted, when a queue is full. */
  readonly whenQueueFull: "oldest" | "newest";
}
