import { expect, test } from "vitest";
import { toPage } from "../../../devices-sim/report/page.ts";
import type { Verification } from "../../../devices-sim/verify/verify.ts";
import { point, runReport, sim } from "./fixtures.ts";

const verdict = {
  sink: "sqlite:a.db",
  acknowledged: 300,
  found: 299,
  lost: 1,
  duplicated: 0,
  reordered: 0,
  corrupted: 0,
  spoiltStored: 0,
  resent: 0,
  redelivered: 0,
  unacknowledged: 0,
  foreign: 0,
  examples: ["message 7 is lost"],
};

const verification = (changes: Partial<Verification>): Verification => ({
  sinks: [],
  rejections: [],
  damagedLines: 0,
  killed: false,
  kept: true,
  ...changes,
});

/** The charts' captions. */
const captions = (page: string): readonly string[] =>
  [...page.matchAll(/<figcaption>([^<]*)/g)].map(([, caption = ""]) => caption.trim());

test("nothing is loaded from elsewhere, and nothing may be", async () => {
  const page = await toPage(runReport());
  expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"`);
  expect(page).not.toMatch(/\b(?:src|href|xlink:href|action)=|url\(|@import|https?:/);
});

test("it has a chart of rates, percentiles, connections and what is in flight", async () => {
  const page = await toPage(runReport());
  expect(captions(page)).toEqual(["Rates", "Time to PUBACK", "Connections", "In flight"]);
  expect(page).toContain("Every good message was acknowledged.");
  expect(page).toContain("<b>1.5 s</b> all devices are connected");
});

test("at QoS 0 there are no acknowledgements to draw or to praise", async () => {
  const quick = { ...sim, qos: 0 } as const;
  const points = [point({ acknowledged: 0, pubackMs: null })];
  const { summary } = runReport();
  const page = await toPage(
    runReport({
      options: quick,
      summary: { ...summary, qos: 0, acknowledged: 0, pubackMs: null },
      timeline: { stepMs: 1000, points, marks: [] },
    }),
  );
  expect(captions(page)).toEqual(["Rates", "Connections"]);
  expect(page).not.toMatch(/class="verdict"|NaN|Infinity|undefined/);
});

test("a run without a point is a page all the same", async () => {
  const page = await toPage(runReport({ timeline: { stepMs: 1000, points: [], marks: [] } }));
  expect(page).not.toMatch(/NaN|Infinity|undefined/);
});

test("a second without an acknowledgement is a gap, and one alone between gaps is a dot", async () => {
  const none = { pubackMs: null };
  const points = [point(none), point(), point(none), point(), point()].map((each, at) => ({
    ...each,
    atMs: 1000 * (at + 1),
  }));
  const page = await toPage(runReport({ timeline: { stepMs: 1000, points, marks: [] } }));
  expect(page).toMatch(/style="--color: var\(--p50\)" d="M300,100h0M700,100L900,100"/);
});

test("faults and errors have a strip each; beyond twenty-four they share one", async () => {
  const errors = Object.fromEntries(Array.from({ length: 30 }, (_, at) => [`E${at}`, 30 - at]));
  const points = [point({ errors, faults: { empty: 5 } })];
  const page = await toPage(runReport({ timeline: { stepMs: 1000, points, marks: [] } }));
  const strips = [...page.matchAll(/<li style="[^"]*"><span>([^<]*)<\/span> <output data-total="(\d+)"/g)];
  expect(strips).toHaveLength(25);
  expect(strips.at(-1)?.slice(1)).toEqual(["7 other kinds", "26"]);
});

test("a broken promise is told first, in the table and in words", async () => {
  const page = await toPage(runReport({ verification: verification({ sinks: [verdict], kept: false }) }));
  expect(page).toMatch(/<p class="verdict" style="--color: var\(--bad\)">A promise was broken\./);
  expect(page).toContain('<td class="number broken">1</td>');
  expect(page).toContain("<li>sqlite:a.db: message 7 is lost</li>");
});

test("what a broker, a sink or an option says is text, never markup or script", async () => {
  const hostile = `</script><img src=x onerror="alert('1')">`;
  const { summary } = runReport();
  const page = await toPage(
    runReport({
      options: { ...sim, topic: hostile },
      summary: { ...summary, errors: { [hostile]: { count: 1, last: hostile } } },
      timeline: {
        stepMs: 1000,
        points: [point({ errors: { [hostile]: 1 } })],
        marks: [{ atMs: 0, text: hostile }],
      },
      verification: verification({ sinks: [{ ...verdict, sink: hostile, examples: [hostile] }], kept: false }),
    }),
  );
  expect(page).not.toContain("<img");
  expect(page.match(/<\/script>/g)).toHaveLength(2);
});

test("the password is not in it", async () => {
  expect(await toPage(runReport())).not.toContain("sesame");
});

test("a point that stands for several seconds says so", async () => {
  const page = await toPage(runReport({ timeline: { stepMs: 4000, points: [point({ ms: 4000 })], marks: [] } }));
  expect(page).toContain("A point is 4 s; its percentiles are those of its worst second.");
});
