import { expect, test } from "vitest";
import { gatewaySettings } from "../../src/config/schema.ts";
import { maximumPacketBytes } from "../../src/journal/record.ts";

test("no packet that may be allowed is too large for the journal, whatever its names", () => {
  expect(gatewaySettings.shape.limits.safeParse({ maximumPacketBytes }).success).toBe(false);
  expect(gatewaySettings.shape.limits.safeParse({ maximumPacketBytes: 360 * 1024 }).success).toBe(true);
  expect(360 * 1024).toBeLessThanOrEqual(maximumPacketBytes);
});
