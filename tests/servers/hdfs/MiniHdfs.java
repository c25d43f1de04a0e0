import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Map;

import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.MiniDFSCluster.DataNodeProperties;
import org.apache.hadoop.hdfs.MiniDFSNNTopology;
import org.apache.hadoop.hdfs.MiniDFSNNTopology.NNConf;
import org.apache.hadoop.hdfs.MiniDFSNNTopology.NSConf;
import org.apache.hadoop.hdfs.server.datanode.DataNode;
import org.apache.hadoop.hdfs.server.namenode.NameNode;
import org.apache.hadoop.hdfs.server.namenode.NameNodeAdapter;

/**
 * Real HDFS on loopback for tests: NameNodes and DataNodes of Hadoop's mini-cluster in one process.
 *
 * <p>{@code java -cp 'jars/*' MiniHdfs.java FOLDER [--ha] [--owner PID]} prints one JSON line when it answers, then obeys commands, one
 * a line, each answered by {@code ok} or {@code error: …}; see {@link #HELP}. They come over the control port, and over stdin where no
 * owner is named. It ends, and removes its data, with the owner's process or with stdin, on {@code exit} and on SIGTERM.
 *
 * <p>The superuser is {@code hdfs} (start it with {@code HADOOP_USER_NAME=hdfs}), so that whoever runs tests is a normal user: anyone may
 * write below {@code /}, nobody but the superuser may enter {@code /private}.
 */
public final class MiniHdfs {
    private static final int DATANODES = 3;
    private static final int REPLICATION = 2;
    private static final int BLOCK_BYTES = 1 << 20; // small, so that small files have several blocks
    private static final String NAME_SERVICE = "feedline";
    private static final String HELP = "stop-datanode N | start-datanode N | stop-namenode N | start-namenode N | safemode on|off"
            + " | active N (HA: all others become standby) | standby N | reset | status | help | exit";

    private final Path folder;
    private final boolean ha;
    private final MiniDFSCluster cluster;
    private final List<String> datanodes; // "127.0.0.1:port" of each number; a restarted one has the same
    private final DataNodeProperties[] stopped = new DataNodeProperties[DATANODES];

    public static void main(String[] args) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err); // stdout is for the ready line and the answers alone
        List<String> options = List.of(args);
        Path folder = Path.of(options.get(0)).toAbsolutePath();
        int owner = options.indexOf("--owner");

        MiniHdfs hdfs = new MiniHdfs(folder, options.contains("--ha"));
        Runtime.getRuntime().addShutdownHook(new Thread(hdfs::end));
        ServerSocket control = new ServerSocket(0, 8, InetAddress.getLoopbackAddress());
        background(() -> hdfs.serve(control));
        out.printf("{\"uri\":\"%s\",\"namenodes\":\"%s\",\"conf\":\"%s\",\"control\":\"127.0.0.1:%d\"}%n",
                hdfs.uri(), hdfs.addresses(), folder.resolve("conf"), control.getLocalPort());
        out.flush();

        if (owner >= 0) {
            ProcessHandle.of(Long.parseLong(options.get(owner + 1))).ifPresent(process -> process.onExit().join());
        } else {
            hdfs.obey(System.in, out);
        }
        hdfs.end();
    }

    private MiniHdfs(Path folder, boolean ha) throws Exception {
        this.folder = folder;
        this.ha = ha;
        MiniDFSNNTopology topology = ha
                ? new MiniDFSNNTopology().addNameservice(new NSConf(NAME_SERVICE).addNN(new NNConf("nn1")).addNN(new NNConf("nn2")))
                : MiniDFSNNTopology.simpleSingleNN(0, 0);
        cluster = new MiniDFSCluster.Builder(serverConf(), folder.resolve("data").toFile())
                .nnTopology(topology).numDataNodes(DATANODES).build();
        cluster.waitActive();
        if (ha) {
            cluster.transitionToActive(0);
        }
        datanodes = cluster.getDataNodes().stream().map(node -> node.getDatanodeId().getXferAddr()).toList();
        Configuration client = writeClientConf();
        try (FileSystem fs = FileSystem.newInstance(client)) {
            fs.setPermission(new org.apache.hadoop.fs.Path("/"), new FsPermission((short) 0777));
            fs.mkdirs(new org.apache.hadoop.fs.Path("/private"));
            fs.setPermission(new org.apache.hadoop.fs.Path("/private"), new FsPermission((short) 0700));
            fs.create(new org.apache.hadoop.fs.Path("/private/secret")).close();
        }
    }

    private Configuration serverConf() {
        Configuration conf = new Configuration();
        conf.setBoolean("dfs.permissions.enabled", true);
        conf.setInt("dfs.replication", REPLICATION);
        conf.setInt("dfs.blocksize", BLOCK_BYTES);
        conf.setInt("dfs.namenode.fs-limits.min-block-size", 1024);
        // A silent DataNode is avoided after 3 s, and dead after 2 × recheck + 10 × heartbeat = 12 s, not after ten minutes.
        conf.setInt("dfs.heartbeat.interval", 1);
        conf.setInt("dfs.namenode.heartbeat.recheck-interval", 1000);
        conf.setInt("dfs.namenode.stale.datanode.interval", 3000);
        conf.setBoolean("dfs.namenode.avoid.read.stale.datanode", true);
        conf.setBoolean("dfs.namenode.avoid.write.stale.datanode", true);
        conf.setInt("dfs.ha.tail-edits.period", 1);
        return conf;
    }

    /** What a client needs to find this cluster, as a folder for HADOOP_CONF_DIR. */
    private Configuration writeClientConf() throws IOException {
        Configuration core = new Configuration(false);
        core.set("fs.defaultFS", uri());
        Configuration hdfs = new Configuration(false);
        if (ha) {
            hdfs.set("dfs.nameservices", NAME_SERVICE);
            hdfs.set("dfs.ha.namenodes." + NAME_SERVICE, "nn1,nn2");
            for (int node = 0; node < 2; node++) {
                hdfs.set("dfs.namenode.rpc-address." + NAME_SERVICE + ".nn" + (node + 1), address(node));
            }
            hdfs.set("dfs.client.failover.proxy.provider." + NAME_SERVICE,
                    "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider");
        }
        Path conf = Files.createDirectories(folder.resolve("conf"));
        Configuration client = new Configuration();
        for (var file : List.of(Map.entry("core-site.xml", core), Map.entry("hdfs-site.xml", hdfs))) {
            try (OutputStream to = Files.newOutputStream(conf.resolve(file.getKey()))) {
                file.getValue().writeXml(to);
            }
            file.getValue().forEach(entry -> client.set(entry.getKey(), entry.getValue()));
        }
        return client;
    }

    private String uri() {
        return "hdfs://" + (ha ? NAME_SERVICE : address(0));
    }

    private String address(int namenode) {
        return "127.0.0.1:" + cluster.getNameNodePort(namenode);
    }

    private String addresses() {
        return ha ? address(0) + "," + address(1) : address(0);
    }

    private void serve(ServerSocket control) {
        while (true) {
            try {
                Socket peer = control.accept();
                background(() -> {
                    try (peer) {
                        obey(peer.getInputStream(), new PrintStream(peer.getOutputStream(), true, StandardCharsets.UTF_8));
                    } catch (IOException gone) {
                        // whoever asked has gone
                    }
                });
            } catch (IOException e) {
                e.printStackTrace();
            }
        }
    }

    private static void background(Runnable work) {
        Thread thread = new Thread(work);
        thread.setDaemon(true);
        thread.start();
    }

    private void obey(InputStream from, PrintStream to) throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(from, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String answer;
            try {
                answer = command(line.trim().split("\\s+"));
            } catch (Exception e) {
                e.printStackTrace();
                answer = "error: " + String.valueOf(e).replace('\n', ' ');
            }
            to.println(answer);
            to.flush();
            if (line.trim().equals("exit")) {
                end();
            }
        }
    }

    private synchronized String command(String[] words) throws Exception {
        switch (words[0]) {
            case "stop-datanode" -> stopDatanode(number(words, DATANODES));
            case "start-datanode" -> startDatanode(number(words, DATANODES));
            case "stop-namenode" -> cluster.shutdownNameNode(number(words, namenodes()));
            case "start-namenode" -> startNamenode(number(words, namenodes()));
            case "safemode" -> safemode(words.length > 1 ? words[1] : "");
            case "active" -> activate(number(words, namenodes()));
            case "standby" -> cluster.transitionToStandby(number(words, namenodes()));
            case "reset" -> reset();
            case "status" -> {
                return "ok " + status();
            }
            case "help" -> {
                return "ok " + HELP;
            }
            case "exit" -> { }
            default -> throw new IllegalArgumentException("unknown command, expected " + HELP);
        }
        return "ok";
    }

    private static int number(String[] words, int below) {
        int number = words.length == 2 ? Integer.parseInt(words[1]) : -1;
        if (number < 0 || number >= below) {
            throw new IllegalArgumentException(words[0] + " takes a number from 0 to " + (below - 1));
        }
        return number;
    }

    private int namenodes() {
        return ha ? 2 : 1;
    }

    private void stopDatanode(int number) {
        DataNodeProperties node = cluster.stopDataNode(datanodes.get(number));
        if (node == null) {
            throw new IllegalStateException("datanode " + number + " is stopped already");
        }
        stopped[number] = node;
    }

    private void startDatanode(int number) throws Exception {
        if (stopped[number] == null) {
            throw new IllegalStateException("datanode " + number + " runs already");
        }
        cluster.restartDataNode(stopped[number], true);
        stopped[number] = null;
        for (DataNode node : cluster.getDataNodes()) {
            while (!node.isDatanodeFullyStarted()) {
                Thread.sleep(50);
            }
        }
    }

    private void startNamenode(int number) throws Exception {
        cluster.restartNameNode(number, false);
        if (!ha) {
            cluster.waitClusterUp();
        }
    }

    private void safemode(String to) throws IOException {
        for (int number = 0; number < namenodes(); number++) {
            NameNode namenode = cluster.getNameNode(number);
            switch (namenode == null ? "stopped" : to) {
                case "on" -> NameNodeAdapter.enterSafeMode(namenode, false);
                case "off" -> NameNodeAdapter.leaveSafeMode(namenode);
                case "stopped" -> { }
                default -> throw new IllegalArgumentException("safemode takes on or off");
            }
        }
    }

    private void activate(int number) throws Exception {
        for (int other = 0; other < namenodes(); other++) {
            NameNode namenode = cluster.getNameNode(other);
            if (other != number && namenode != null && namenode.isActiveState()) {
                cluster.transitionToStandby(other);
            }
        }
        cluster.transitionToActive(number);
    }

    /** Everything up, out of safe mode, the first NameNode active: as it was in the beginning. */
    private void reset() throws Exception {
        for (int number = 0; number < namenodes(); number++) {
            if (cluster.getNameNode(number) == null) {
                startNamenode(number);
            }
        }
        if (ha) {
            activate(0);
        }
        for (int number = 0; number < DATANODES; number++) {
            if (stopped[number] != null) {
                startDatanode(number);
            }
        }
        cluster.waitActive(0);
        safemode("off");
    }

    private String status() {
        StringBuilder status = new StringBuilder();
        for (int number = 0; number < namenodes(); number++) {
            NameNode node = cluster.getNameNode(number);
            String state = node == null ? "stopped" : node.isInSafeMode() ? node.getState() + ",safemode" : node.getState();
            status.append("namenode ").append(number).append('=').append(state).append(' ');
        }
        for (int number = 0; number < DATANODES; number++) {
            status.append("datanode ").append(number).append('=').append(stopped[number] == null ? "up " : "stopped ");
        }
        return status.toString().trim();
    }

    /** Ends at once, as a machine that is switched off: nobody wants the data, and closing it in order takes seconds. */
    private void end() {
        try (var paths = Files.walk(folder)) {
            paths.sorted(Comparator.reverseOrder()).forEach(path -> path.toFile().delete());
        } catch (IOException | UncheckedIOException e) {
            System.err.println("could not remove " + folder + ": " + e);
        }
        Runtime.getRuntime().halt(0);
    }
}
