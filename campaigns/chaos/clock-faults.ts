import { type ChaosFault, oneOf } from './fault.ts'

/** The wall clock of certferry alone steps, and is set right again. Everybody else keeps the true time. */
export const clockFaults: readonly ChaosFault[] = (
  [
    ['clock a little off', ['+30', '-30', '+10', '-10']],
    ['clock minutes off', ['+5m', '-5m', '+1h']],
    ['clock far off', ['-1d', '+1d', '+30d', '-2h']],
  ] as const
).map(([kind, offsets]) => ({
  kind,
  group: 'clock',
  seconds: [3, 25],
  begin: async ({ setClock }, dice) => {
    setClock(oneOf(dice, offsets))
    return () => setClock('+0')
  },
}))
