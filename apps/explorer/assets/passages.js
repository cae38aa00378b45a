export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".passages");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", data.label);
  root.className = "passages" + (data.large ? " large" : "");
  root.replaceChildren(...data.rows.map((row, number) => {
    const line = made("div", "row"), text = made("span", "text");
    if (row.note) line.append(made("span", "note", row.note));
    row.words.forEach((word, i) => {
      const token = made("span", "token" + (i === row.at ? " at" : ""), word);
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
