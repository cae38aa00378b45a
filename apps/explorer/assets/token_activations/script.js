export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".token_activations");
  group(root, "token_activations" + (data.large ? " large" : ""), data.label);
  root.replaceChildren(...data.rows.map((row, number) => {
    const line = element("div", "row"), text = element("span", "text");
    if (row.note) line.append(element("span", "note", row.note));
    row.tokens.forEach((string, i) => {
      const token = element("span", "token" + (i === row.at ? " at" : ""), string);
      token.setAttribute("role", "button");
      token.dataset.token = i;
      if (data.large) token.tabIndex = 0;
      if (row.shares[i] > 0) token.style.setProperty("--a", 100 * (0.08 + 0.62 * row.shares[i]) + "%");
      if (row.titles[i]) token.title = row.titles[i];
      token.onclick = () => setTriggerValue("token", [number, i]);
      token.onkeydown = (event) => { if (event.key === "Enter") setTriggerValue("token", [number, i]); };
      text.append(token);
    });
    line.append(text);
    return line;
  }));
}
