export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".steps");
  const span = (data.high - data.low) || 1;
  const across = (v) => 100 * (v - data.low) / span + "%";
  const cells = [];
  for (const row of data.rows) {
    const kind = row.kind === "sum" ? " sum" : "";
    const two = made("div", "two" + kind), label = made("div", "label" + kind), track = made("div", "track" + kind);
    if (row.unit) {
      const picture = row.src ? made("img", "picture") : made("span", "none", row.address);
      if (row.src) { picture.src = row.src; picture.alt = "what " + row.address + " answers to most"; }
      const kernel = made("img", "kernel sharp");
      kernel.src = row.kernel;
      kernel.alt = "kernel from " + row.address;
      two.append(picture, kernel);
      const link = made("a", "");
      link.href = row.href;
      link.dataset.unit = row.unit;
      link.onclick = (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        setTriggerValue("open", row.unit);
      };
      if (row.name) link.append(made("span", "", row.name + " "));
      link.append(made("span", "mono" + (row.name ? " muted" : ""), row.address));
      label.append(link);
    } else {
      label.append(made("span", row.kind === "sum" ? "" : "muted", row.name));
    }
    const bar = made("i", row.kind === "sum" ? "sum" : row.kind === "rest" ? "rest" : row.sign > 0 ? "plus" : "minus");
    const from = Math.min(row.start, row.end), to = Math.max(row.start, row.end);
    bar.style.left = across(from);
    bar.style.width = 100 * (to - from) / span + "%";
    const zero = made("span", "zero");
    zero.style.left = across(0);
    track.append(zero, bar);
    const sign = row.kind === "sum" || row.kind === "rest" ? "" : row.sign > 0 ? " plus" : row.sign < 0 ? " minus" : "";
    cells.push(two, label, track, made("div", "value" + sign + kind, row.number));
  }
  root.replaceChildren(...cells);
}
