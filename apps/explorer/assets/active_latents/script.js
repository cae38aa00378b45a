export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".active_latents");
  group(root, "active_latents" + (data.rows.some((row) => row.name) ? " labeled" : ""), data.label);
  root.replaceChildren(...data.rows.map((row) => {
    const line = element("button", "latent" + (row.chosen ? " chosen" : ""));
    line.type = "button";
    line.dataset.latent = row.latent;
    line.setAttribute("aria-pressed", row.chosen);
    const bar = element("span", "bar"), fill = element("span", "fill");
    fill.style.width = 100 * row.share + "%";
    bar.append(fill);
    bar.title = Math.round(100 * row.share) + " % of its maximum";
    const promoted = element("span", "promoted", row.promoted.join("  "));
    promoted.title = "tokens whose logits it raises most";
    line.append(element("span", "id mono", ":" + row.latent), element("span", "name", row.name), bar, element("span", "number", row.number), promoted);
    line.onclick = () => setTriggerValue("pick", row.latent);
    return line;
  }));
}
