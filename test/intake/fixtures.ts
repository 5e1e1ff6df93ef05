// What the intake's tests share: streams, messages, and an intake over a journal whose memory is restored.

import { join } from "node:path";
import { z } from "zod";
import { json } from "../../src/decode/json.ts";
import { createEvents, type EventBus } from "../../src/events.ts";
import { createIntake, type Intake } from "../../src/intake/intake.ts";
import { restoreMemory, type Restored, type RestoreOptions } from "../../src/intake/restore.ts";
import type { Journal } from "../../src/journal/journal.ts";
import { openReader } from "../../src/journal/reader.ts";
import type { Message } from "../../src/reading.ts";
import { createRegistry, type Registry } from "../../src/validate/registry.ts";
import { defineStream, type StreamDefinition } from "../../src/validate/stream.ts";

const schema = z.object({ id: z.coerce.string() });

export const climate = defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema });

export const withDedupe = (window: number, key: (data: { id: string }) => unknown = ({ id }) => id): StreamDefinition =>
  ({ ...climate, dedupe: { key, window } }) as unknown as StreamDefinition;

/** One time for all: a record that is older than the one before begins a new frame of the journal. */
export const receivedAt = 1_700_000_000_000;

export const message = (deviceId: string, id: unknown, rest: Partial<Message> = {}): Message => ({
  topic: `devices/${deviceId}/telemetry`,
  payload: Buffer.from(JSON.stringify({ id })),
  clientId: deviceId,
  deviceId,
  receivedAt,
  qos: 1,
  packetId: 0,
  ...rest,
});

/** A QoS 2 message of a session that lasts. */
export const qos2 = (clientId: string, packetId: number): Message => message(clientId, packetId, { qos: 2, packetId });

export interface Opened {
  readonly registry: Registry;
  readonly restored: Restored;
  readonly intake: Intake;
  readonly events: EventBus;
  readonly take: (of: Message) => ReturnType<Intake["take"]>;
  /** Client id, then its unfinished packet identifiers. */
  readonly unfinished: () => Record<string, number[]>;
}

export const checkpointPath = ({ share }: Journal): string => join(share.dir, "checkpoint");

export function openIntake(
  journal: Journal,
  stream: StreamDefinition = climate,
  options: Partial<RestoreOptions> = {},
): Opened {
  const registry = createRegistry([stream]);
  const events = createEvents();
  const restored = restoreMemory({
    path: checkpointPath(journal),
    journal,
    openReader: (from, onLost) => openReader(journal.share, from, onLost),
    registry,
    limits: { sessions: 100, maximumInflightQos2: 100 },
    ...options,
  });
  const intake = createIntake({ registry, journal, memory: restored.memory, events });
  return {
    registry,
    restored,
    intake,
    events,
    take: (of) => intake.take(of, { stream: "climate", deviceId: of.deviceId }),
    unfinished: () =>
      Object.fromEntries([...intake.unfinished].map(([clientId, offsets]) => [clientId, [...offsets.keys()]])),
  };
}
