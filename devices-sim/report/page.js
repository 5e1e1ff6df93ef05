// Shows the values below the pointer, in all charts at once. The charts are complete without it.

const { atMs, endMs, charts, lanes } = JSON.parse(document.querySelector("#values").textContent);
const chartOutputs = [...document.querySelectorAll(".chart")].map((chart) => [
  ...chart.querySelectorAll(".legend output"),
]);
const laneOutputs = [...document.querySelectorAll(".lanes output")];
const cursors = document.querySelectorAll(".cursor");

/** The point whose time is nearest. */
function nearest(timeMs) {
  let [low, high] = [0, atMs.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (atMs[middle] < timeMs) low = middle;
    else high = middle;
  }
  return timeMs - atMs[low] < atMs[high] - timeMs ? low : high;
}

function show(at) {
  for (const cursor of cursors) {
    cursor.style.display = "block";
    cursor.style.left = `${(100 * atMs[at]) / endMs}%`;
  }
  for (const [chart, outputs] of chartOutputs.entries()) {
    for (const [line, output] of outputs.entries()) output.textContent = charts[chart][line][at] ?? "–";
  }
  for (const [lane, output] of laneOutputs.entries()) output.textContent = lanes[lane][at];
}

function hide() {
  for (const cursor of cursors) cursor.style.display = "none";
  for (const output of chartOutputs.flat()) output.textContent = "";
  for (const output of laneOutputs) output.textContent = output.dataset.total;
}

for (const plot of document.querySelectorAll(".plot")) {
  const follow = (event) => {
    const { left, width } = plot.getBoundingClientRect();
    show(nearest(((event.clientX - left) / width) * endMs));
  };
  plot.addEventListener("pointermove", follow);
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("pointerleave", hide);
}
