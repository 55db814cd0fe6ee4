/** From so many certificates on, memory is worth more than time. */
const MANY = 50

/**
 * Has the heap grow by little at a time where many certificates are first delivered at once: with 1000 of them a third less memory is held
 * ever after, for a seventh more time (docs/performance.md). With few it would only cost time at the start. Modules that are loaded from
 * here on are compiled anew, since Node's compile cache holds for one set of flags.
 */
export function keepHeapSmall(certificates: number): void {
  if (certificates >= MANY) process.getBuiltinModule('node:v8').setFlagsFromString('--optimize-for-size')
}
