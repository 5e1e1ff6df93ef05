// The limits of a connection, from the configuration (`limits`, where each has its default, bound and description).

export interface Limits {
  /** A larger packet ends the connection before its body is read. */
  readonly maximumPacketBytes: number;
  /** The same for a CONNECT, before anybody knows who the client is. */
  readonly maximumConnectBytes: number;
  /** Time from the network connection to a complete CONNECT. */
  readonly connectTimeoutMs: number;
  readonly maximumConnections: number;
  /** Undefined: three quarters of maximumConnections. */
  readonly maximumConnectionsPerAddress?: number | undefined;
  /** New connections beyond it wait their turn; 0: no limit. */
  readonly connectionsPerSecond: number;
  /** Of one client; one that sends faster is read more slowly. 0: no limit. */
  readonly messagesPerSecond: number;
  readonly bytesPerSecond: number;
  /** MQTT 5 clients that ask for a longer keep-alive, or for none, are given this one. 0: no limit. */
  readonly maximumKeepAliveS: number;
  /** What may wait for one subscriber; beyond it live messages are dropped for that subscriber and counted. */
  readonly subscriberQueueBytes: number;
  /** Unfinished QoS 2 messages per client, and the receive maximum told to MQTT 5 clients. */
  readonly maximumInflightQos2: number;
  /** Topic aliases that an MQTT 5 client may set on its connection. */
  readonly topicAliases: number;
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
