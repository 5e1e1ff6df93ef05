// The parts of packages without types that the broker room uses.

declare module "qlobber" {
  export interface QlobberOptions {
    readonly separator?: string;
    readonly wildcard_one?: string;
    readonly wildcard_some?: string;
    readonly match_empty_levels?: boolean;
  }

  export class Qlobber<Value> {
    constructor(options?: QlobberOptions);
    add(filter: string, value: Value): this;
    remove(filter: string, value?: Value): this;
    match(topic: string): Value[];
  }
}

declare module "aedes-persistence/asyncPersistence.js" {
  import type { Readable } from "node:stream";
  import type { AedesPublishPacket, Client, Subscription } from "aedes";

  export default class MemoryPersistence {
    storeRetained(packet: AedesPublishPacket): Promise<void>;
    createRetainedStream(filter: string): Readable;
    createRetainedStreamCombi(filters: string[]): Readable;
    addSubscriptions(client: Client, subscriptions: Subscription[]): Promise<void>;
    removeSubscriptions(client: Client, filters: string[]): Promise<void>;
    cleanSubscriptions(client: Client): Promise<void>;
    subscriptionsByClient(client: Client): Promise<Subscription[]>;
    countOffline(): Promise<{ subsCount: number; clientsCount: number }>;
    outgoingEnqueueCombi(subscriptions: { clientId: string }[], packet: AedesPublishPacket): Promise<void>;
    outgoingUpdate(client: Client, packet: AedesPublishPacket): Promise<void>;
    outgoingClearMessageId(client: Client, packet: AedesPublishPacket): Promise<AedesPublishPacket | undefined>;
    incomingDelPacket(client: Client, packet: AedesPublishPacket): Promise<void>;
    cleanIncoming(client: Pick<Client, "id">): Promise<void>;
  }
}
