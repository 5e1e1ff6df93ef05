import { bare } from "./bare.ts";
import { cbor } from "./cbor.ts";
import { flat } from "./flat.ts";
import type { PayloadShape } from "./payload.ts";
import { sluice } from "./sluice.ts";
import { sparkplugB } from "./sparkplug-b.ts";
import { tasmota } from "./tasmota.ts";
import { thingsboard } from "./thingsboard.ts";
import { zigbee2mqtt } from "./zigbee2mqtt.ts";

export const payloads = {
  sluice,
  flat,
  tasmota,
  zigbee2mqtt,
  thingsboard,
  bare,
  cbor,
  "sparkplug-b": sparkplugB,
} satisfies Record<string, PayloadShape>;

export type PayloadName = keyof typeof payloads;

export const payloadNames = Object.keys(payloads) as readonly PayloadName[];
