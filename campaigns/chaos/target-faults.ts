import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { between, type ChaosFault, NOTHING_TO_UNDO, oneOf } from './fault.ts'
import { replace } from './subject.ts'

/** What befalls the nginx that serves the certificate. */
export const targetFaults: readonly ChaosFault[] = [
  {
    kind: 'nginx killed',
    group: 'target',
    seconds: [0, 20],
    begin: async (subject) => {
      await subject.nginx.stop('SIGKILL')
      return subject.startNginx
    },
  },
  {
    kind: 'nginx stopped',
    group: 'target',
    seconds: [0, 20],
    begin: async (subject) => {
      await subject.nginx.stop()
      return subject.startNginx
    },
  },
  {
    kind: 'nginx suspended',
    group: 'target',
    seconds: [1, 15],
    begin: async ({ nginx }) => {
      process.kill(-nginx.pid, 'SIGSTOP')
      return () => void process.kill(-nginx.pid, 'SIGCONT')
    },
  },
  {
    kind: 'worker suspended',
    group: 'target',
    seconds: [1, 15],
    begin: async ({ nginx }, dice) => {
      const workers = workersOf(nginx.pid)
      const worker = workers[Math.floor(dice() * workers.length)]
      if (worker === undefined) throw new Error('nginx has no worker')
      process.kill(worker, 'SIGSTOP')
      return () => {
        if (workersOf(nginx.pid).includes(worker)) process.kill(worker, 'SIGCONT')
      }
    },
  },
  {
    kind: 'nginx config broken',
    group: 'target',
    seconds: [3, 25],
    begin: async ({ nginx }) => {
      const config = readFileSync(nginx.configFile, 'utf8')
      replace(nginx.configFile, `${config}\nbogus on;\n`)
      return () => replace(nginx.configFile, config)
    },
  },
  {
    kind: 'foreign reloads',
    group: 'target',
    seconds: [0, 5],
    begin: async ({ nginx }, dice) => {
      const times = oneOf(dice, [1, 5, 20])
      for (let count = 0; count < times; count += 1) {
        nginx.reload()
        await sleep(between(dice, 20, 200))
      }
      return NOTHING_TO_UNDO
    },
  },
]

const workersOf = (master: number) =>
  readFileSync(`/proc/${master}/task/${master}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
