export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".firing");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", data.label);
  root.className = "firing" + (data.rows.some((row) => row.name) ? " named" : "");
  root.replaceChildren(...data.rows.map((row) => {
    const line = made("button", "latent" + (row.chosen ? " chosen" : ""));
    line.type = "button";
    line.dataset.latent = row.latent;
    line.setAttribute("aria-pressed", row.chosen);
    const bar = made("span", "bar"), fill = made("span", "fill");
    fill.style.width = 100 * row.share + "%";
    bar.append(fill);
    bar.title = Math.round(100 * row.share) + " % of its maximum";
    const says = made("span", "says", row.words.join("  "));
    says.title = "makes the model say";
    line.append(made("span", "id mono", ":" + row.latent), made("span", "called", row.name), bar, made("span", "number", row.number), says);
    line.onclick = () => setTriggerValue("pick", row.latent);
    return line;
  }));
}
