#!/usr/bin/env node
// Plain JavaScript, because any Node may be the first to read it. In a clone it runs the TypeScript source, which is never stale; an
// installed package holds only the bundle.
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import module from 'node:module'
import { constants } from 'node:os'
import { fileURLToPath } from 'node:url'

const OLDEST = 24
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']
const EXIT_BUG = 70

const root = new URL('../', import.meta.url)
const source = new URL('src/cli.ts', root)
const pinnedNode = fileURLToPath(new URL('node_modules/.bin/node', root))

if (Number(process.versions.node.split('.')[0]) >= OLDEST) await start()
else if (existsSync(pinnedNode)) runWith(pinnedNode)
else {
  console.error(
    `certferry needs Node ${OLDEST} or later, this is ${process.version}; in a clone, "npm ci" installs one`,
  )
  process.exitCode = EXIT_BUG
}

async function start() {
  if (existsSync(source)) return import(source.href)
  // Beside the bundle, where only those can write who could change the bundle as well; never the shared temporary folder.
  module.enableCompileCache?.(fileURLToPath(new URL('dist/.compile-cache', root)))
  module.createRequire(import.meta.url)('../dist/cli.cjs')
}

/** Runs this file again with another Node, as if it were this process: same terminal, same signals, same end. */
function runWith(node) {
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' })
  for (const signal of SIGNALS) process.on(signal, () => forward(signal, child))
  child.on('error', (error) => {
    console.error(`certferry cannot start ${node}: ${error.message}`)
    process.exit(EXIT_BUG)
  })
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? EXIT_BUG)
    // Dies of the same signal, so that a shell sees what happened; where that is impossible, its customary exit code.
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
    setTimeout(() => process.exit(128 + constants.signals[signal]), 100)
  })
}

/** Ctrl-C reaches the whole foreground group, thus also the child; passing it on would make it a second one, which means "at once". */
function forward(signal, child) {
  if ((signal === 'SIGINT' || signal === 'SIGQUIT') && isForeground()) return
  child.kill(signal)
}

function isForeground() {
  try {
    const stat = readFileSync('/proc/self/stat', 'utf8')
    // proc(5): state, ppid, pgrp, session, tty_nr, tpgid follow the name in parentheses.
    const [, , group, , , foreground] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return group === foreground
  } catch {
    return process.stdin.isTTY === true
  }
}
