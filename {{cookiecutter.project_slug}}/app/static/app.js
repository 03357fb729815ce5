// The script of every page. All pages work without it.

/** Return the CSRF header for a request to `url`; none for another origin, which must never see the token. */
export function csrfHeaders(url) {
  const token = document.querySelector('meta[name="csrf-token"]')?.content;
  const ours = new URL(url, location.href).origin === location.origin;
  return token && ours ? { "X-CSRFToken": token } : {};
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

function countDown(line, button) {
  const end = Date.now() + Number(line.dataset.retryAfter) * 1000;
  const clock = line.querySelector("[role=timer]");
  button.hidden = false;
  button.addEventListener("click", () => location.reload());
  const tick = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    if (left > 0) {
      const minutes = Math.floor(left / 60);
      clock.textContent = (minutes ? `${minutes} min ` : "") + `${left % 60} s`;
      return;
    }
    clearInterval(timer);
    line.setAttribute("role", "status");
    line.textContent = "You can try again now.";
    button.disabled = false;
  };
  const timer = setInterval(tick, 1000);
  tick();
}

const wait = document.querySelector("[data-retry-after]");
if (wait) countDown(wait, document.getElementById("try-again"));
