/** Menus of the toolbar: one is open at a time, until something else is pressed, or Escape. */

/** From now on. */
export function closeMenus(): void {
    const open = () => document.querySelector<HTMLDetailsElement>("details.menu[open]");
    const closeOutside = ({ target }: Event) => {
        const menu = open();
        if (menu && !menu.contains(target as Node)) menu.open = false;
    };
    document.addEventListener("pointerdown", closeOutside, { capture: true });
    document.addEventListener("focusin", closeOutside);
    document.addEventListener(
        "keydown",
        (event) => {
            const menu = open();
            if (event.key !== "Escape" || !menu) return;
            // It is the menu's, and cancels nothing.
            event.stopPropagation();
            menu.open = false;
            menu.querySelector("summary")?.focus();
        },
        { capture: true },
    );
}
