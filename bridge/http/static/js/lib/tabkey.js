/** Where the playground keeps its key: in this tab, until it is closed. */
export const TAB_KEY = "cli-bridge key";
