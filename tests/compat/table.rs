//! Ordinary tools and tasks, each as a shell line run in a workspace, with what it must print.
//!
//! Every line is what a person would type. None needs a network beyond the workspace's own
//! loopback. `{dir}` is an empty directory of the row's own.

/// One row of the table.
pub(crate) struct Task {
    /// What a person would call it.
    pub(crate) name: &'static str,
    /// A line for `bash -c`.
    pub(crate) line: &'static str,
    /// Text that must be in what it prints.
    pub(crate) prints: &'static str,
    /// Exit code.
    pub(crate) code: u8,
    /// Whether it needs the option `--nested`.
    pub(crate) nested: bool,
}

const fn task(name: &'static str, line: &'static str, prints: &'static str) -> Task {
    Task { name, line, prints, code: 0, nested: false }
}

pub(crate) const TASKS: &[Task] = &[
    task(
        "sh: pipes and arithmetic",
        "printf '3\\n1\\n2\\n' | sort -n | tail -1; echo $((6*7))",
        "42",
    ),
    task(
        "bash: arrays, process substitution",
        "a=(x y z); diff <(echo ${a[1]}) <(echo y) && echo same",
        "same",
    ),
    task(
        "coreutils: find, xargs -P",
        "cd {dir} && seq 200 | xargs -P4 -I@ touch f@ && find . -type f | wc -l",
        "200",
    ),
    task(
        "tar with gzip, xz, zstd",
        "cd {dir} && mkdir a && echo hi >a/f && for z in gzip xz zstd; do tar --$z -cf a.$z a && mkdir o$z && tar -xf a.$z -C o$z; done && cat o*/a/f | sort | uniq -c",
        "3 hi",
    ),
    task(
        "zip and unzip",
        "cd {dir} && echo hi >f && zip -q f.zip f && rm f && unzip -q f.zip && cat f",
        "hi",
    ),
    task(
        "gcc: compile and run",
        "cd {dir} && printf '#include <stdio.h>\\nint main(){puts(\"compiled\");}' >m.c && gcc -O2 -o m m.c && ./m",
        "compiled",
    ),
    task(
        "g++: threads and exceptions",
        "cd {dir} && printf '#include <thread>\\n#include <iostream>\\nint main(){std::thread t([]{try{throw 1;}catch(int){std::cout<<\"caught\";}});t.join();}' >m.cc && g++ -pthread -o m m.cc && ./m",
        "caught",
    ),
    task(
        "make: a parallel build",
        "cd {dir} && printf 'all: a b c\\n%%:\\n\\t@echo made $@\\n' >Makefile && make -s -j4 | sort | tail -1",
        "made c",
    ),
    task(
        "gdb: an own child",
        "cd {dir} && printf 'int f(int x){return x+1;}int main(){return f(41);}' >m.c && gcc -g -o m m.c && gdb -q -batch -ex 'break f' -ex run -ex 'print x' ./m 2>&1",
        "= 41",
    ),
    task("strace: an own child", "strace -f -e trace=openat true 2>&1 | tail -1", "exited with 0"),
    task(
        "valgrind: a leak found",
        "cd {dir} && printf '#include <stdlib.h>\\nint main(){malloc(7);return 0;}' >m.c && gcc -g -o m m.c && valgrind --leak-check=full ./m 2>&1",
        "7 bytes in 1 blocks are definitely lost",
    ),
    task(
        "python3: standard library",
        "python3 -c 'import json,hashlib,ctypes,lzma;print(json.dumps({\"ok\":hashlib.sha256(b\"x\").hexdigest()[:4]}))'",
        "{\"ok\": \"2d71\"}",
    ),
    task(
        "python3: multiprocessing",
        "python3 -c 'import multiprocessing as m\nif __name__==\"__main__\":\n  with m.Pool(4) as p: print(sum(p.map(abs,range(-10,10))))'",
        "100",
    ),
    task(
        "python3: venv and pip install",
        "cd {dir} && python3 -m venv v && mkdir p && printf 'def hi():\\n  return \"from pip\"\\n' >p/thing.py && printf 'from setuptools import setup\\nsetup(name=\"thing\",version=\"1\",py_modules=[\"thing\"])\\n' >p/setup.py && v/bin/pip install -q --no-index --no-build-isolation ./p 2>&1 && v/bin/python -c 'import thing;print(thing.hi())'",
        "from pip",
    ),
    task(
        "python3: asyncio subprocesses",
        "python3 -c 'import asyncio\nasync def go():\n  p=await asyncio.create_subprocess_exec(\"echo\",\"async\",stdout=asyncio.subprocess.PIPE)\n  print((await p.communicate())[0].decode())\nasyncio.run(go())'",
        "async",
    ),
    task(
        "sqlite3: journal and locks",
        "cd {dir} && sqlite3 a.db 'pragma journal_mode=wal; create table t(x); insert into t values(7); select x from t;'",
        "7",
    ),
    task(
        "node: files, crypto, workers",
        "node -e 'const {Worker,isMainThread,parentPort}=require(\"worker_threads\");new Worker(\"require(\\\"worker_threads\\\").parentPort.postMessage(6*7)\",{eval:true}).on(\"message\",m=>console.log(m))'",
        "42",
    ),
    task(
        "npm: install a local package",
        "cd {dir} && mkdir p a && echo '{\"name\":\"thing\",\"version\":\"1.0.0\",\"main\":\"i.js\"}' >p/package.json && echo 'module.exports=\"from npm\"' >p/i.js && cd a && npm init -y >/dev/null && npm install --offline --no-audit --no-fund ../p >/dev/null 2>&1 && node -p 'require(\"thing\")'",
        "from npm",
    ),
    task(
        "git: commit, branch, clone, worktree",
        "cd {dir} && git init -q -b main r && cd r && git config user.email a@b && git config user.name n && echo 1 >f && git add f && git commit -qm one && git worktree add -q ../w -b side && git clone -q . ../c && git -C ../c log --oneline | wc -l",
        "1",
    ),
    task(
        "perl",
        "perl -MDigest::MD5=md5_hex -e 'print md5_hex(\"x\"),\"\\n\"'",
        "9dd4e461268c8034f5c8564e155c67a6",
    ),
    task(
        "awk, sed, grep, bc, jq",
        "echo '{\"a\":[1,2,3]}' | jq '.a|add' | sed 's/$/*7/' | bc",
        "42",
    ),
    task(
        "dpkg: build a package",
        "cd {dir} && mkdir -p p/DEBIAN p/usr/share/thing && echo data >p/usr/share/thing/d && printf 'Package: thing\\nVersion: 1\\nArchitecture: all\\nMaintainer: n <a@b>\\nDescription: x\\n' >p/DEBIAN/control && dpkg-deb --root-owner-group -b p thing.deb >/dev/null && dpkg -i thing.deb >/dev/null && cat /usr/share/thing/d",
        "data",
    ),
    task(
        "apt: install a local package",
        "cd {dir} && mkdir -p p/DEBIAN p/usr/share/apt-thing && echo data >p/usr/share/apt-thing/d && printf 'Package: apt-thing\\nVersion: 1\\nArchitecture: all\\nMaintainer: n <a@b>\\nDescription: x\\n' >p/DEBIAN/control && dpkg-deb --root-owner-group -b p t.deb >/dev/null && apt-get install -y -qq --allow-downgrades -o APT::Sandbox::User=root ./t.deb >/dev/null 2>&1; cat /usr/share/apt-thing/d && apt-get remove -y -qq apt-thing >/dev/null 2>&1; dpkg -l apt-thing 2>/dev/null | grep -c ^ii || echo removed",
        "removed",
    ),
    task(
        "useradd, su and runuser from root",
        "useradd -m -s /bin/bash worker && su worker -c 'id -un' && runuser -u worker -- id -un | tr a-z A-Z",
        "WORKER",
    ),
    Task {
        name: "sudo-like programs are told why",
        line: "useradd -m w2; cp /usr/bin/id {dir}/id; chmod 4755 {dir}/id; chmod 755 {dir}; su w2 -c '{dir}/id -u' | grep -vx 0 && grep NoNewPrivs /proc/self/status",
        prints: "NoNewPrivs:\t1",
        code: 0,
        nested: false,
    },
    task(
        "tmux: a session with keys",
        "cd {dir} && tmux -L t new-session -d -x 80 -y 24 && tmux -L t send-keys 'echo in-$((40+2))' Enter && for i in $(seq 100); do tmux -L t capture-pane -p | grep -q in-42 && break; sleep 0.05; done; tmux -L t capture-pane -p | grep -m1 ^in-42; tmux -L t kill-server",
        "in-42",
    ),
    task(
        "script: a terminal of its own",
        "script -qec 'tty; stty size' /dev/null < /dev/null | head -1",
        "/dev/pts/",
    ),
    task(
        "ssh-keygen",
        "cd {dir} && ssh-keygen -q -t ed25519 -N '' -f k && ssh-keygen -lf k.pub",
        "ED25519",
    ),
    task(
        "openssl: TLS on the loopback",
        "cd {dir} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out c -days 1 -subj /CN=localhost 2>/dev/null && (openssl s_server -accept 4433 -key k -cert c -quiet -naccept 1 >/dev/null 2>&1 & for i in $(seq 100); do echo | openssl s_client -connect 127.0.0.1:4433 -CAfile c 2>/dev/null | grep -m1 'Verify return code' && break; sleep 0.05; done)",
        "0 (ok)",
    ),
    task(
        "curl from a server on the loopback",
        "cd {dir} && echo served >f && (python3 -m http.server -b 127.0.0.1 8123 >/dev/null 2>&1 & P=$!; for i in $(seq 100); do curl -sf http://127.0.0.1:8123/f && break; sleep 0.05; done; kill $P)",
        "served",
    ),
    task(
        "IPv6 loopback",
        "(python3 -m http.server -b ::1 8124 >/dev/null 2>&1 & P=$!; for i in $(seq 100); do curl -sf -o /dev/null -w '%{http_code}' 'http://[::1]:8124/' && break; sleep 0.05; done; kill $P)",
        "200",
    ),
    task(
        "wget says that nothing is reachable",
        "wget -q -T 3 -t 1 http://192.0.2.1/ ; echo code $?",
        "code 4",
    ),
    task(
        "postgresql: initdb, start, query",
        "export PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin | tail -1); id postgres >/dev/null 2>&1 || useradd postgres; mkdir -p {dir}/pg && chown -R postgres {dir} && cd {dir} && su postgres -c \"PATH=$PATH; initdb -D {dir}/pg >/dev/null && pg_ctl -D {dir}/pg -o '-k {dir} -h 127.0.0.1 -p 5433' -w -l {dir}/log start >/dev/null && psql -h 127.0.0.1 -p 5433 -U postgres -Atc 'select 6*7' postgres; pg_ctl -D {dir}/pg stop -m fast >/dev/null\"",
        "42",
    ),
    task(
        "services without systemd",
        "cd {dir} && setsid nohup sh -c 'echo up >ready; exec sleep 60' >/dev/null 2>&1 & for i in $(seq 100); do [ -f {dir}/ready ] && break; sleep 0.05; done; cat {dir}/ready; pkill -x sleep",
        "up",
    ),
    task(
        "rsync between directories",
        "cd {dir} && mkdir a && seq 50 | xargs -I@ sh -c 'echo @ >a/@' && rsync -a a/ b/ && diff -r a b && echo same",
        "same",
    ),
    task("flock and fallocate", "cd {dir} && fallocate -l 1M f && flock f stat -c %s f", "1048576"),
    task(
        "named pipes and signals",
        "cd {dir} && mkfifo p && { (trap 'echo got >p' USR1; kill -USR1 $BASHPID) & read x <p; echo $x; }",
        "got",
    ),
    task(
        "locale, time zone, date",
        "LC_ALL=C.UTF-8 TZ=UTC date -d @0 +%FT%TZ; locale charmap 2>/dev/null || true",
        "1970-01-01T00:00:00Z",
    ),
    task(
        "vim in batch mode",
        "cd {dir} && printf 'one\\n' >f && $(command -v vim || echo vim.tiny) -Es -u NONE -c '%s/one/two/' -c wq f; cat f",
        "two",
    ),
    task("ping is refused, and says so", "ping -c1 -W1 127.0.0.1 2>&1 | head -1; true", ""),
    Task {
        name: "unshare is refused without --nested",
        line: "unshare -U true 2>&1",
        prints: "Operation not permitted",
        code: 1,
        nested: false,
    },
    Task {
        name: "unshare works with --nested",
        line: "unshare -Urm sh -c 'mount -t tmpfs t /mnt && echo nested'",
        prints: "nested",
        code: 0,
        nested: true,
    },
    Task {
        name: "chromium under its own sandbox",
        line: "cd {dir} && useradd -m b && chown b . && echo '<title>x</title><p id=p>rendered' >p.html && su b -c 'chromium --headless --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage --user-data-dir={dir}/profile --dump-dom file://{dir}/p.html' 2>{dir}/err || tail -5 {dir}/err",
        prints: "rendered",
        code: 0,
        nested: true,
    },
];
