import type { Random } from "../random.ts";
import { between, clamp, dayCurve, exponential, MINUTE_MS, round, SECOND_MS, wander } from "./process.ts";
import { defineProfile } from "./profile.ts";

const HEARTBEAT_MS = 5 * MINUTE_MS;
/** Share of those who come and do not go through. */
const PASSING_BY = 0.2;
const VISIT_MS = 3 * MINUTE_MS;

/** What happens at a door, in this order; between a "clear" and the next "motion" there are heartbeats. */
type Event = "motion" | "open" | "close" | "clear" | "heartbeat";

const following: Readonly<Record<Exclude<Event, "motion">, Event>> = {
  open: "close",
  close: "clear",
  clear: "motion",
  heartbeat: "motion",
};

/**
 * A door contact with a motion sensor. It sends only when something happens, and a heartbeat when nothing has for five minutes:
 * somebody comes, the door opens, it closes, all is quiet again. Lux follows the daylight and the lamp that motion switches on.
 */
export const door = defineProfile({
  metrics: { open: "0/1", motion: "0/1", openings: "count", illuminance: "lx", battery: "%" },
  intervalMs: MINUTE_MS,
  open(random: Random) {
    const window = between(random, 20, 400);
    const lamp = between(random, 80, 300);
    const clouds = wander(random, { deviation: 0.4, memoryMs: 10 * MINUTE_MS });
    let next: Event = "heartbeat";
    let [open, motion] = [false, false];
    let openings = Math.floor(between(random, 0, 5000));
    let battery = between(random, 60, 100);

    return {
      read(nowMs) {
        if (next !== "heartbeat") [open, motion] = [next === "open", next !== "clear"];
        if (open) openings += 1;
        next = next === "motion" ? (random() < PASSING_BY ? "clear" : "open") : following[next];
        battery = Math.max(0, battery - 0.0008);
        const daylight =
          window * Math.max(0, dayCurve(nowMs + 3 * 60 * MINUTE_MS)) * Math.exp(clamp(clouds(nowMs), -1, 1));
        return {
          open: open ? 1 : 0,
          motion: motion ? 1 : 0,
          openings,
          illuminance: round(daylight + (motion ? lamp : 0.5), 1),
          battery: round(battery, 1),
        };
      },
      waitMs() {
        if (next === "open") return between(random, 1, 4) * SECOND_MS;
        if (next === "close") return between(random, 3, 20) * SECOND_MS;
        if (next === "clear") return between(random, 20, 60) * SECOND_MS;
        const waitMs = exponential(random, VISIT_MS);
        if (waitMs <= HEARTBEAT_MS) {
          next = "motion";
          return waitMs;
        }
        next = "heartbeat";
        return HEARTBEAT_MS;
      },
    };
  },
});
