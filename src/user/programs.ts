/** programs.ts - the programs that a machine can be told to run, by name. Each comes with a page in docs/programs. */
import { register_program } from '../syscall/exec.js'
import { arping_main } from './arping.js'
import { echo_main } from './echo.js'
import { ip_program_main } from './ip.js'
import { ipq_main } from './ipq.js'
import { kill_main } from './kill.js'
import { host_main, named_main } from './named.js'
import { ping_main } from './ping.js'
import { routed_main } from './routed.js'
import { tcpdump_main } from './tcpdump.js'
import { traceroute_main } from './traceroute.js'
import { udpechod_main } from './udpecho.js'
import { udpgen_main, udpsink_main } from './udpgen.js'

register_program('echo', echo_main)
register_program('udpechod', udpechod_main)
register_program('ip', ip_program_main)
register_program('routed', routed_main)
register_program('ping', ping_main)
register_program('traceroute', traceroute_main)
register_program('udpgen', udpgen_main)
register_program('udpsink', udpsink_main)
register_program('named', named_main)
register_program('host', host_main)
register_program('tcpdump', tcpdump_main)
register_program('arping', arping_main)
register_program('kill', kill_main)
register_program('ipq', ipq_main)
