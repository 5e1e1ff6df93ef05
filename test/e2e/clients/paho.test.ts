// Python's paho client (Debian's 1.6): what each scenario of paho_scenarios.py does and expects stands there.

import { join } from "node:path";
import { describe, expect } from "vitest";
import { needs, run } from "../tools.ts";
import { test } from "./fixtures.ts";

const script = join(import.meta.dirname, "paho_scenarios.py");

const scenarios = ["qos", "telemetry", "retained", "will", "session", "takeover"] as const;
const only5 = ["expiry", "message_expiry", "user_properties", "topic_alias", "flow_control", "will_delay"] as const;

describe.for(["3", "4", "5"] as const)("paho with protocol level %s", (version) => {
  test.for(version === "5" ? [...scenarios, ...only5] : scenarios)(
    "is content: %s",
    { concurrent: true },
    async (scenario, { gateway, skip }) => {
      needs(skip, "paho");
      const finished = await run("/usr/bin/python3", [script, String(gateway.mqttPort), version, scenario]).finished;
      expect(finished).toMatchObject({ code: 0, stderr: "" });
    },
  );
});
