// Good messages that come twice, late or again. What a gateway makes of them: see DeliveryFault.

import type { DeliveryFault } from "./fault.ts";

export const duplicate: DeliveryFault = { kind: "delivery", about: "sent twice, as two messages", how: "twice" };

export const outOfOrder: DeliveryFault = { kind: "delivery", about: "sent behind the one that follows", how: "late" };

/** [MQTT-4.4.0-1]: what was not acknowledged is sent again after the next CONNECT, with DUP. */
export const dupResend: DeliveryFault = {
  kind: "delivery",
  about: "its PUBACK gets lost with the connection: sent again with DUP",
  how: "unheard",
};
