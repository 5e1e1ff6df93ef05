// A scenario of your own for the simulator: `npm run sim -- --scenario config/monday.ts`. A quiet night, then everybody comes to
// work: devices send more, the radio is full, and somebody trips over the cable of an access point. Try it on your own broker
// before it happens there. `npm run sim -- --help` lists the faults with their usual times.

import { defineScenario } from "sluice/sim";

export default defineScenario({
  phases: [
    { name: "night", duration: "30s", rate: 0.5 },
    {
      name: "morning",
      duration: "1m",
      rate: 2,
      faults: {
        // A share of the messages …
        duplicate: 0.01,
        "malformed-json": 0.001,
        // … or of the devices: one in five is away for a quarter of a minute, again and again, and then sends what it kept.
        offline: { share: 0.2, every: "20s", for: "15s" },
        flapping: { share: 0.05, every: "30s", for: "10s" },
      },
    },
    { name: "cable", duration: "20s", faults: { "reconnect-storm": { share: 0.5, every: "5s" } } },
    { name: "repaired", duration: "10s" },
  ],
});
