import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Certferry } from '../../test/support/certferry.ts'
import { between, type ChaosFault, NOTHING_TO_UNDO } from './fault.ts'
import { replace, type Subject } from './subject.ts'

/** What befalls certferry itself. */
export const processFaults: readonly ChaosFault[] = [
  stopped('certferry killed', 'SIGKILL'),
  stopped('certferry stopped', 'SIGTERM'),
  {
    kind: 'certferry suspended',
    group: 'certferry',
    seconds: [2, 25],
    begin: async ({ certferry }) => {
      process.kill(certferry.pid, 'SIGSTOP')
      return () => void process.kill(certferry.pid, 'SIGCONT')
    },
  },
  {
    kind: '50 SIGHUPs',
    group: 'certferry',
    seconds: [0, 0],
    begin: async ({ certferry }) => {
      await isUp(certferry)
      for (let count = 0; count < 50; count += 1) certferry.send('SIGHUP')
      return NOTHING_TO_UNDO
    },
  },
  rotated('rotation asked for', 0),
  rotated('killed in a rotation', 1_500),
  {
    kind: 'config touched',
    group: 'certferry',
    seconds: [0, 0],
    begin: async ({ stage }) => {
      replace(stage.configFile, readFileSync(stage.configFile, 'utf8'))
      return NOTHING_TO_UNDO
    },
  },
  {
    kind: 'config changed',
    group: 'certferry',
    seconds: [2, 15],
    begin: async ({ stage }) => {
      const config = readFileSync(stage.configFile, 'utf8')
      replace(stage.configFile, config.replace('"kind": "tls"', '"kind": "tls", "probes": 7'))
      return () => replace(stage.configFile, config)
    },
  },
  {
    kind: 'config broken',
    group: 'certferry',
    seconds: [2, 15],
    begin: async ({ stage, certferry }) => {
      // At the start it would be an error that ends the process.
      await isUp(certferry)
      const config = readFileSync(stage.configFile, 'utf8')
      replace(stage.configFile, config.slice(0, config.length / 2))
      return () => replace(stage.configFile, config)
    },
  },
  {
    kind: 'two at once',
    group: 'certferry',
    seconds: [3, 15],
    begin: async (subject, dice) => {
      const twin = await subject.startTwin()
      await sleep(between(dice, 500, 3_000))
      // The second takes over, and hands back.
      await subject.stopCertferry('SIGKILL')
      return async () => {
        subject.startCertferry()
        await sleep(between(dice, 0, 2_000))
        await subject.endTwin(twin)
      }
    },
  },
]

function stopped(kind: string, signal: 'SIGTERM' | 'SIGKILL'): ChaosFault {
  return {
    kind,
    group: 'certferry',
    seconds: [0, 5],
    begin: async (subject) => {
      await subject.stopCertferry(signal)
      return subject.startCertferry
    },
  }
}

/** A rotation, with a kill at a random moment of it where `killedWithinMs` says so. */
function rotated(kind: string, killedWithinMs: number): ChaosFault {
  return {
    kind,
    group: 'certferry',
    seconds: killedWithinMs > 0 ? [0, 4] : [0, 0],
    begin: async (subject, dice) => {
      await ask(subject)
      if (killedWithinMs === 0) return NOTHING_TO_UNDO
      await sleep(between(dice, 0, killedWithinMs))
      await subject.stopCertferry('SIGKILL')
      return subject.startCertferry
    },
  }
}

const isUp = (certferry: Certferry) => certferry.certificate('web', 'is looked after', () => true)

async function ask({ certferry, asked }: Subject): Promise<void> {
  // Before it is asked: it may do so even when the answer does not arrive.
  asked.count += 1
  await certferry.control.rotate({ certificates: ['web'], reason: 'chaos' })
}
