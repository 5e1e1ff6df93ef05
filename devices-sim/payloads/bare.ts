import type { PayloadShape } from "./payload.ts";

/** `21.5`: a number and nothing else. Each metric has its topic; without {metric} in the topic only the first one is sent. */
export const bare: PayloadShape = {
  topic: "devices/{device}/{metric}",
  qos: 1,
  open: ({ topic }) => ({
    encode({ metrics }) {
      const all = Object.entries(metrics);
      return (topic.includes("{metric}") ? all : all.slice(0, 1)).map(([name, value]) => ({
        topic: topic.replaceAll("{metric}", name),
        payload: String(value),
      }));
    },
  }),
};
