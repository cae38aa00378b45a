export default function ({ parentElement, data, setTriggerValue }) {
  parentElement.querySelector(".weights").replaceChildren(...data.rows.map((row) => {
    const box = element("div", "weight"), connection = element("div", "connection"), text = element("div", "text");
    const title = row.address + (row.label ? ": " + row.label : "");
    const other = unitLink(row, "", setTriggerValue), name = unitLink(row, "name", setTriggerValue);
    if (!row.src) other.title = name.title = title;  // else there is a preview
    other.append(unitImage(row.src, row.address));
    const own = unitImage(data.own, data.name, "own");
    const kernel = loadedImage(row.kernel, "kernel: " + row.effect, "kernel sharp");
    const longest = Math.max(...row.shape);
    kernel.style.width = 50 * row.shape[1] / longest + "px";
    kernel.style.height = 50 * row.shape[0] / longest + "px";
    kernel.title = row.weights;
    connection.append(...(data.incoming ? [other, kernel, own] : [own, kernel, other]));
    if (row.label) name.append(element("b", "", row.label));
    name.append(element("span", "mono" + (row.label ? " muted" : ""), row.address));
    const numbers = element("div", "");
    numbers.append(element("span", signOf(row.sign), row.number), element("span", "muted", " \u00b7 " + row.share));
    text.append(name, numbers, element("div", "muted", row.effect));
    box.append(connection, text);
    return box;
  }));
}
