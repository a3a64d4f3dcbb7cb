// Texts whose colour stands out less than WCAG asks of small text: 4.5 to 1.
(() => {
  const linear = part => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = colour => {
    const [r, g, b] = colour.match(/[\d.]+/g).map(value => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = element => {
    const [dark, bright] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  return [...document.querySelectorAll("p,h1,h2,small,td,th,dt,dd,button,label,li,span")]
    .filter(element => element.textContent.trim() && element.offsetParent && ratio(element) < 4.5)
    .map(element => `${element.tagName}.${element.className}: ${element.textContent.slice(0, 30)}`);
})()
