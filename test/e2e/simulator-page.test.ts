// The page of a run in a real browser: nothing is blocked or fails, it fits a phone, and it shows the values below the pointer.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect } from "vitest";
import { toPage } from "../../devices-sim/report/page.ts";
import { point, runReport } from "../devices-sim/report/fixtures.ts";
import { test } from "../fixtures.ts";
import { needs, run } from "./tools.ts";

interface Seen {
  readonly complaints: readonly string[];
  /** How far the page is wider than the window. */
  readonly overflow: number;
  /** Names and values of all legends, with the pointer over 2.5 s. */
  readonly values: readonly string[];
  readonly afterwards: readonly string[];
}

/** Looks at the page from within, and leaves what it has seen in its body. */
const witness = `<script>
const complaints = [];
addEventListener("error", ({ message }) => complaints.push(message));
addEventListener("securitypolicyviolation", ({ violatedDirective }) => complaints.push(violatedDirective));
addEventListener("load", () => {
  const plot = document.querySelector(".plot");
  const { left, width } = plot.getBoundingClientRect();
  const texts = () => [...document.querySelectorAll(".legend li, .lanes li")].map((li) => li.textContent.trim());
  plot.dispatchEvent(new PointerEvent("pointermove", { clientX: left + (width * 2.5) / 4 }));
  const values = texts();
  plot.dispatchEvent(new PointerEvent("pointerleave"));
  const { scrollWidth, clientWidth } = document.documentElement;
  const overflow = scrollWidth - clientWidth;
  const pre = document.createElement("pre");
  pre.textContent = "SEEN" + JSON.stringify({ complaints, overflow, values, afterwards: texts() }) + "SEEN";
  document.body.append(pre);
});
</script>`;

async function look(page: string, path: string, width: number): Promise<Seen> {
  await writeFile(
    path,
    page.replace("<header>", () => `${witness}<header>`),
  );
  const options = ["--headless", "--no-sandbox", "--disable-gpu", `--window-size=${width},900`, "--dump-dom"];
  const { stdout } = await run("chromium", [...options, pathToFileURL(path).href]).finished;
  const text = /SEEN(\{.*\})SEEN<\/pre>/s.exec(stdout)?.[1] ?? "";
  return JSON.parse(text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&")) as Seen;
}

const points = [1, 2, 3, 4].map((second) =>
  point({ atMs: 1000 * second, sent: 100 * second, errors: { "connection lost": second } }),
);

test("a page is whole on a screen and on a phone, and tells the values below the pointer", async ({ dir, skip }) => {
  needs(skip, "chromium");
  const page = await toPage(runReport({ timeline: { stepMs: 1000, points, marks: [] } }));
  for (const width of [1200, 390]) {
    const seen = await look(page, join(dir, "run.html"), width);
    expect(seen).toMatchObject({ complaints: [], overflow: 0 });
    expect(seen.values).toEqual(
      expect.arrayContaining(["sent 300", "acknowledged 100", "p50 1", "max 4", "connected 10", "connection lost 3"]),
    );
    expect(seen.afterwards).toEqual(expect.arrayContaining(["sent", "connected", "connection lost 10"]));
  }
});
