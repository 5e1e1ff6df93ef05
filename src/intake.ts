// decode → validate → append: what a connection calls for each telemetry PUBLISH. Synchronous, so order per device is
// kept from socket to journal; there is no promise per message, acknowledgements wait for the journal's watermark.

import type { EventBus } from "./events.ts";
import type { Journal } from "./journal/journal.ts";
import type { Message, Route, Verdict } from "./reading.ts";
import type { Registry } from "./validate/registry.ts";

export interface Intake {
  /** The stream that a topic belongs to; undefined: it is not telemetry. */
  readonly route: (topic: string) => Route | undefined;
  /** What becomes of one message. Never throws. An offset in the verdict is durable once the journal has passed it. */
  readonly take: (message: Message, route: Route) => Verdict;
}

export interface IntakeOptions {
  readonly registry: Registry;
  readonly journal: Pick<Journal, "append">;
  readonly events: EventBus;
}

export function createIntake({ registry, journal, events }: IntakeOptions): Intake {
  return {
    route: (topic) => registry.route(topic),
    take(message, { stream }) {
      events.emit("received", message.qos);
      const result = registry.read(message, stream);
      if (result.kind === "reading") {
        const offset = journal.append(message, stream);
        events.emit("accepted", stream, offset);
        return { kind: "appended", offset };
      }
      const { rejection } = result;
      const offset = journal.append(message, stream, rejection);
      events.emit("rejected", message, rejection, offset);
      return { kind: "rejected", offset, rejection };
    },
  };
}
