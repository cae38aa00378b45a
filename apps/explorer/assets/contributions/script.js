export default function ({ parentElement, data, setTriggerValue }) {
  const span = (data.high - data.low) || 1;
  const across = (value) => 100 * (value - data.low) / span + "%";
  const cells = data.rows.flatMap((row) => {
    const total = row.kind === "sum" ? " sum" : "";
    const source = element("div", "source" + total), label = element("div", "label" + total), track = element("div", "track" + total);
    if (row.unit) {
      source.append(unitImage(row.src, row.address), loadedImage(row.kernel, "kernel from " + row.address, "kernel sharp"));
      const link = unitLink(row, "", setTriggerValue);
      if (row.name) link.append(element("span", "", row.name + " "));
      link.append(element("span", "mono" + (row.name ? " muted" : ""), row.address));
      label.append(link);
    } else {
      label.append(element("span", total ? "" : "muted", row.name));
    }
    const neutral = row.kind === "sum" || row.kind === "rest";
    const zero = element("span", "zero"), bar = element("i", neutral ? row.kind : row.sign > 0 ? "plus" : "minus");
    zero.style.left = across(0);
    bar.style.left = across(Math.min(row.start, row.end));
    bar.style.width = 100 * Math.abs(row.end - row.start) / span + "%";
    track.append(zero, bar);
    return [source, label, track, element("div", "value " + (neutral ? "" : signOf(row.sign)) + total, row.number)];
  });
  parentElement.querySelector(".contributions").replaceChildren(...cells);
}
