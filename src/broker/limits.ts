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
  /** Sessions kept for clients that are away. */
  readonly sessions: number;
  /** Messages that wait for one session; further ones are dropped for it and counted. */
  readonly queuedMessagesPerSession: number;
}
