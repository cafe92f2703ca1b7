"""What semdedup promises, and the tests that hold it to that."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """One line of the page.

    Attributes:
        says: what is promised.
        how: how that is tested.
        tests: functions, as ``file::function`` without ``tests/`` and ``.py``.
    """

    says: str
    how: str
    tests: tuple[str, ...]


def _promise(says: str, how: str, **tests: str) -> Promise:
    """Tests by file: the names of the functions without ``test_``, which read as sentences."""
    named = (
        f"test_{file}::test_{'_'.join(one.split())}" for file, all_of in tests.items() for one in all_of.split(";")
    )
    return Promise(says, how, tuple(named))


PROMISES: dict[str, tuple[Promise, ...]] = {
    "The answer": (
        _promise(
            "Within a cluster each row has the score of its most similar better-ranked row, and names it.",
            "Brute force in a few lines of NumPy, known answers of another program, real embeddings",
            workflow="scores and witnesses equal a reference in numpy;"
            "the blobs of the peer have as many duplicates as there",
            reference="scores of six known vectors",
            similarity="any rows and any batch size agree with the definition",
            real_rows="inside clusters",
        ),
        _promise(
            "Each removal rule takes what it says: `any`, `witness` (a kept row within eps for each "
            "that goes, and no two "
            "kept rows match), `components`.",
            "Ten lines of NumPy for each rule; chains of slow drift",
            removal="each rule takes what ten lines of numpy take;a chain of slow drift keeps a witness for each row;"
            "rules on digits",
            reference="on real rows the rules differ and contain each other",
        ),
        _promise(
            "With `exact_up_to` every match of the whole input is found, whatever the clusters.",
            "Brute force over all rows, with rows laid so that bounds are tight",
            across="scores and removals are those of brute force;a join finds what brute force finds;"
            "the answer does not depend on the number of clusters",
            real_rows="over the whole input",
        ),
        _promise(
            "New rows against an earlier result (`base`) get the answer of one run over both; base rows stay.",
            "One comparison over both with forced ranks, to the bit",
            base="the answer is that of rule 8 to the bit;a chain gives what one comparison with forced ranks gives;"
            "withdrawn rows match nothing and what they alone kept out is named",
            run_grown="new clips are compared with those of before",
            real_rows="new rows on a base",
        ),
        _promise(
            "`find_pairs` gives every pair within eps, `find_leaks` every leak.",
            "Brute force",
            pairs="the pairs are those of brute force however the rows lie;any rows any ranking",
            leaks="the tasks compute the definition on every backend;the answer does not depend on files or blocks",
        ),
        _promise(
            "A row goes at eps iff its score reaches `float32(1 - eps)`; bit-identical rows match at eps 0.",
            "Scores at the threshold and one bit beside it",
            shard="a score at the threshold is a duplicate in float32",
            reference="equal rows match at eps 0",
            across="copies match at eps zero",
            scores="counting decides as the rule does whatever the scores",
        ),
        _promise(
            "Who stays is the rank: distance, columns, `best`, or a seeded hash, ties by id.",
            "Sorting in plain Python",
            ranking="the order is that of sorting with what is missing last;"
            "the best copy has most pixels then bitrate then duration;"
            "a random rank depends on its seed and on the id alone",
        ),
        _promise(
            "The 95 % intervals of `estimate` and `calibrate` hold.",
            "Many seeds against the known truth",
            estimate="of all rows it is what brute force finds in the clusters of the run;"
            "intervals hold for at least 17 of 20 seeds",
            calibrate="intervals hold what is true",
        ),
        _promise(
            "Overlaps: stretches that videos share are found, and a clip goes only where "
            "better-ranked videos show enough of it.",
            "One call over all tracks; every moment looked at by itself",
            overlaps="the answer is that of one call over all tracks however they are cut;"
            "what was cut out of a video is found after a split",
            overlap_duplicates="any clips and any overlaps;a clip goes where a better ranked video shows enough of it",
        ),
        _promise(
            "`dct3d` finds copies that were encoded again, scaled, brightened or put between bars, and nothing else.",
            "Videos drawn for the test, with planted copies",
            recall="of every original and its copies one is kept;different videos are below the threshold;"
            "every copy is nearer to its original than any two videos to each other",
            demo="the demo finds what it planted and nothing else and runs again",
        ),
    ),
    "The same everywhere": (
        _promise(
            "The answer does not depend on files, their order, partitions, workers, batches or tiles.",
            "The same rows cut in many ways, rows and cuts drawn by Hypothesis",
            workflow="the number of files changes nothing;the order of rows and files changes nothing;"
            "batches and partitions change nothing;the number of workers changes nothing;"
            "any partitioning and order of any rows gives the same answer;"
            "tiny tasks with many partitions buckets and tiles change nothing",
            tiles="scores forests and removals are those of a cluster in one task",
            seeding="the fit is the same whatever the parts and makes one sum a thread",
        ),
        _promise(
            "It does not depend on the instruction set of the processor, or on the precision that "
            "products are made in.",
            "The same bits where BLAS and NumPy are told to use older instructions, and without "
            "NumKong; products of every "
            "precision within their proven bound",
            instruction_sets="another instruction set gives the same bits",
            products="the answer is the same without numkong;no product is off by more than the bound",
            exact="the error bound holds for float32 products of any block;a row has the same bits alone "
            "and in company",
            kmeans="labels are those of float64 for every precision of the products",
        ),
        _promise(
            "A GPU gives the answer of the CPU, to the bit.",
            "The kernels built for the processor, and the whole over a strict stand-in for CuPy; on "
            "a GPU where there is one",
            host_kernels="kernels built for the processor have the bits of numpy;"
            "sums that are cut off err by less than the bound",
            strict_cupy="arrays and kernels on the gpu;the whole dedup on the gpu",
            gpu="every table and centroid is that of the cpu",
        ),
        _promise(
            "It is the same on a disk and in a store (S3, GCS, Azure).",
            "Servers on this machine that speak the stores' protocols",
            s3="input and output on s3 give the answer of local ones",
            split_s3="in and out on s3 give the files of a local run",
            stores="a run with input and output in a store gives the answer of a local one",
            shard_s3="from a bucket to a bucket",
        ),
        _promise(
            "Frames give the answer of files, and the steps on a Dask frame that of the workflow, row for row.",
            "Each kind of frame beside a file of the same rows",
            frame_input="every kind of frame loses the rows that a file of them loses",
            frames="the steps on a dask frame give the scores of the workflow row for row",
        ),
        _promise(
            "The same videos give the same ids and, on one kind of processor, the same bytes; so do shards.",
            "Twice, and with other workers",
            split_video="the same input gives the same bytes here and in a child",
            split_workflow="a folder that moves keeps its ids and nothing is done again;"
            "videos that are added give what a fresh run over all gives",
            shard="the bytes do not depend on workers and partitions",
        ),
    ),
    "What others have written": (
        _promise(
            "Pipelines, folders and ids of NeMo Curator and cosmos-curate are what they are there.",
            "Their documented examples, with only the imports changed; their recipes, computed by hand",
            stages="the pipeline of the documents runs with only its imports changed;"
            "comparison alone equals the reference on clusters of another program",
            column_types="clusters of curator are compared",
            clip_ids="the recipes of the peers for fixed strides;the recipe of the peers for scenes",
            shard="the tree of cosmos curate has a bin for every clip;"
            "tars have no time and no owner and any tar reads them",
        ),
    ),
    "Nothing is lost": (
        _promise(
            "Input = kept + duplicates + shown by another video + quarantined.",
            "Counted over every output",
            workflow="every input row stands once in scores or quarantine",
            shard="every kept clip is there once and no dropped clip",
            run="every clip is in the dataset or a duplicate",
            run_overlaps="what another video shows goes before the dedup",
            export="each row that stays is there once with all its columns",
        ),
        _promise(
            "A row that cannot be compared is set aside with its reason, and never a duplicate.",
            "Nulls, NaN, zeros and wrong lengths in every type of column",
            bad_input="a row that cannot be compared is quarantined with reason and source;"
            "quarantined rows are counted by reason over all files",
        ),
        _promise(
            "What looks like data and is passed over is told: files, folders, tracks, frames.",
            "Folders full of other things",
            bad_input="what is passed over is told before and after and kept on record",
            find_videos="videos are found by ending or content and the others are told",
            what_is_told="a frame that cannot be decoded costs itself and is counted",
        ),
        _promise(
            "A fault of a disk, a network or a store skips nothing.",
            "Faults while files are read; a store that refuses three requests of ten",
            complete="a fault while a file is read skips nothing",
            store_requests="a store that refuses three requests of ten is read and written all the same",
            bad_videos="a second run tries again what failed by the moment and nothing else",
        ),
    ),
    "Complete or absent": (
        _promise(
            "A power cut after exit 0 loses nothing; one before it leaves what the next run goes on from.",
            "A disk image is copied at that moment, as the disk holds it, and mounted",
            durability="a power cut right after the end loses nothing;a power cut before the end is gone on from",
            commit="files and folders are forced to disk before the record names them",
        ),
        _promise(
            "Whichever operation of storage fails, or is the last of a killed process, one more run "
            "gives the same bytes.",
            "Operation after operation fails, the disk is full from it on, or the process is killed at it",
            faults="whichever operation it is;a fault that passes changes nothing or ends in a run that goes on;"
            "a full disk ends a run that then goes on;a run that is killed goes on",
        ),
        _promise(
            "A run that was killed does only what is missing, with the result of a run that was not.",
            "Drivers, workers and schedulers are killed",
            resume="a driver killed in step after step ends with the same bytes;"
            "a driver killed on a foreign cluster ends with the same bytes and repeats nothing;"
            "a worker killed in the middle changes nothing",
            split_resume="killed twice with all workers the third run does only the rest and gives the same bytes;"
            "killed at every moment of a commit it ends with the same bytes",
            run="a run that is killed goes on and gives the same",
            clusters="a scheduler killed in the middle is a cluster error and the run goes on elsewhere",
            ctrl_c="at any moment of a run that then goes on",
        ),
        _promise(
            "Results of 0.1 are read, and a run on one stops and says how to make it anew.",
            "Results of that version",
            complete="a result of format 1 is read as a foreign table;"
            "a run on a result of format 1 stops and clears it where asked to",
            split_files="what 0 1 made is refused and cleared",
        ),
        _promise(
            "Ctrl-C ends a program in seconds, says how to go on, and leaves no process behind.",
            "Pressed while workers start, in the middle of a task, and twice",
            ctrl_c="while workers start;in the middle of a task;"
            "pressed again it ends at once and once it ends all the same",
        ),
        _promise(
            '"Complete already" is said after looking; what is missing or changed is named and made again.',
            "Files are deleted, cut and changed, byte by byte with `--verify`",
            complete="what is missing or changed is named and made again;"
            "a flipped byte is found where checksums are asked for;readers refuse a result that is not all there",
            split_files="a file that is missing or changed is named and made again",
        ),
        _promise(
            "One run at a time in a folder; one that was overtaken changes nothing of the other.",
            "Processes that are suspended, killed and overtaken, and runs that start at once",
            owner="of many that claim at once one gets it;"
            "a run that was suspended and overtaken touches nothing of the other;"
            "of two runs that start at once one does all and the other is told or finds it done",
        ),
        _promise(
            "An input that changes during a run is refused, other parameters are never mixed in, and "
            "a result that was moved "
            "or copied goes on.",
            "Each, on real outputs",
            complete="input that changes during the run is refused;a result that was moved or copied is still complete",
            resume="other parameters are refused with the difference and the way out;"
            "other input is refused with the difference",
        ),
        _promise(
            "Nothing that semdedup did not write is deleted.",
            "Files of others lie among ours, and records name files elsewhere",
            resume="clear output deletes what is ours and nothing else",
            record="clearing what semdedup did not write deletes nothing;"
            "names that lead out of the folder are refused on reading",
            complete="a record that was made to harm harms nothing",
            clean="what dead runs have left goes and everything else stays",
            split_files="metadata that others add to are as they were left",
        ),
    ),
    "Hostile input": (
        _promise(
            "A bad video costs itself and nothing else: crashes, hangs, memory and time of decoders included.",
            "Damaged, cut, huge and hostile files; decoders that crash, hang and eat memory",
            bad_videos="every video ends as it should and the others go on;"
            "a small file of huge pictures costs no memory;limits hold from the first pixel and frame on",
            child="a decoder that crashes costs its video and no worker;"
            "a video that takes too much memory costs itself and no worker;"
            "silence for too long ends the process",
        ),
        _promise(
            "A video reaches no other file and no host, and what decodes it answers with no pickle "
            "and holds no secret.",
            "Playlists and scripts beside a trap that would tell",
            bad_videos="playlists and scripts named as videos reach for nothing;"
            "the trap shuts where nothing is forbidden",
            child="an answer that is a pickle is refused and runs nothing;"
            "credentials in the environment do not reach the process",
        ),
        _promise(
            "Any id or name of a file is data: no path, no markup, no pattern.",
            "`/`, `..`, `<script>`, line breaks, and names that are no UTF-8",
            shard="hostile names are safe keys and stand in the json",
            bad_videos="any name of a file is the name of a video",
            report="hostile ids show as text;the policy forbids what the page does not need",
            shard_plan="keys are safe and differ where ids do",
        ),
        _promise(
            "What is accepted works to the end; what is not is refused before work starts, with what "
            "was found and what to do.",
            "Every type of column in every place, and every wrong value of every setting at each of the three doors",
            column_types="columns of every type come out of the clusters as they went in;"
            "embeddings of every accepted type are clustered as their numbers",
            settings="wrong values are refused in python by one sentence;"
            "wrong values of flags end in status 2 and the same sentence;"
            "wrong values in yaml end in status 2 and the same sentence",
            foreign_tables="every reader refuses a table of scores that cannot be right",
            bad_input="a file that cannot be used is named with what it has",
            **{"import": "every error has the one base is public and parameter errors are value errors"},
        ),
        _promise(
            "A worker that dies costs no result, and the file or video that it was at is named.",
            "Workers are killed, run out of memory, leave and join",
            session="workers that die cost no result;a task that aborts its worker is named with the signal;"
            "workers that join later get tasks",
        ),
        _promise(
            "A cluster that you own is left as it was found.",
            "Clients and schedulers of others, before and after",
            clusters="a foreign cluster is left as it was found;without a client a cluster is started and ended",
        ),
        _promise(
            "An error is one message that says what to do; exit statuses are 0 done, 1 failed, 2 usage, 3 done with "
            "something in quarantine.",
            "Commands as a user types them",
            cli="faults end in one clear message and a status;quarantined rows end in exit status 3",
        ),
        _promise(
            "Credentials are in no file, log, key or message.",
            "Searched for in everything that a run writes and says",
            s3="the secret is in no file log key or word of a run;a task that fails on s3 tells no secret",
            split_s3="the way from videos to duplicates on s3 tells no secret",
            storage="options show in no error;paths that cannot be are refused without repeating credentials",
            cli="secrets given as storage options are never shown",
        ),
    ),
    "Videos": (
        _promise(
            "A clip shows what the source shows: colours, shape and orientation.",
            "FFmpeg's own picture, at most 2.5 of 255 off; every way to store a picture",
            pixels="clips embeddings and previews show what ffmpeg shows;"
            "every way to store a picture is shown as ffmpeg shows it",
        ),
        _promise(
            "It shows it when the source does, and lasts its span.",
            "Frames that say their numbers; variable, broken and reordered times",
            clip_times="the last frame of a clip lasts its time;clips of a variable rate show each frame for its time;"
            "frames that are stored out of order are neither lost nor late",
            split_video="clips hold exactly their frames;no frame is lost or twice at any rate",
        ),
        _promise(
            "Clips between cuts begin exactly at the cuts, however the video is stored.",
            "Videos with cuts at known frames",
            scenes="clips begin exactly at the cuts and hold their scenes;"
            "cuts do not depend on how the video is stored",
        ),
        _promise(
            "Sound is kept and in step, and what had to be changed is said.",
            "Tones beside the pictures that FFmpeg shows with them",
            clip_times="tones come with the pictures that ffmpeg shows with them",
            clip_sound="the channels of sound stay what they are;"
            "damaged packets of sound cost those packets and are told",
        ),
    ),
    "Any size": (
        _promise(
            "The memory of a task is what its formula says, and does not grow with the input.",
            "Measured in processes of their own",
            memory="the assignment of a partition stays within its formula;scoring a group stays within its formula",
            wide_rows="text of 7 kb a row beside short vectors needs no more than 700 mib",
            file_list="a client holds so many bytes a listed file",
        ),
        _promise(
            "Tasks, requests and bytes are those that `forecast` tells, and none grows with the square of the rows.",
            "Counted on the wire",
            paper="tasks of a run are as many as the formulas say;"
            "requests and bytes of a run are those of the formulas;nothing grows with the square of the rows",
            store_requests="of a wide file the columns that are wanted are fetched in few requests",
            remote_videos="each byte is fetched once and the clips are those of local videos",
        ),
    ),
}
"""By the headings of the page."""

UNTESTED = (
    "No GPU has run any of it: the kernels are compared with NumPy on the processor, and what needs "
    "cuDF, cuML or NVENC has "
    "not run at all.",
    "No real weights of a model were loaded; models are tiny, of the real classes, with random weights.",
    "Linux alone: no test has run on macOS or Windows.",
    "Stores are servers on one machine that speak their protocols; no run has been made on AWS, GCS "
    "or Azure themselves.",
    "Clips were not made on two kinds of processors and compared; that encoders give the same bytes "
    "there is not promised.",
    "A disk that lies about having written (a cache without power protection) is beyond what a program can test.",
)
"""What no test holds, in words for the page."""
