// A journal that cannot take more, seen from the devices.

import { isDeepStrictEqual } from "node:util";
import type { GatewayProcess } from "../../gateway-process.ts";
import { readMetric, until } from "../observe.ts";
import type { Fleet } from "./fleet.ts";

/** Sent by QoS 0 devices meanwhile: they wait for nobody. */
const meanwhile = 300;

/** Resolves when nothing is taken and nothing acknowledged although devices send. What had been taken may come first. */
export async function standsStill(gateway: GatewayProcess, fleet: Fleet): Promise<void> {
  const state = async (): Promise<object> => ({
    received: await readMetric(gateway, "gateway_messages_received_total"),
    confirmed: fleet.confirmed(),
  });
  await until("nothing is taken and nothing acknowledged", async () => {
    const before = await state();
    await fleet.reaches(fleet.acknowledged() + meanwhile);
    return isDeepStrictEqual(await state(), before);
  });
}
