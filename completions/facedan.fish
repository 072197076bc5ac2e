# fish completion for facedan. Made by .ci/generate.py from the command line itself; do not edit.

# Whether the words so far are just these, so that a command is due.
function __facedan_at
    set -l words (commandline -opc)
    set -e words[1]
    test "$words" = "$argv"
end

# Whether the words so far call this command.
function __facedan_calls
    set -l words (commandline -opc)
    set -e words[1]
    string match -q -- "$argv *" "$words "
end

# That of the command line, else of the environment, else the current directory.
function __facedan_workspace
    set -l workspace .
    set -q FACEDAN_WORKSPACE; and set workspace $FACEDAN_WORKSPACE
    set -l before
    for word in (commandline -opc)
        if contains -- "$before" -w --workspace
            set workspace $word
        else if string match -q -- '--workspace=*' $word
            set workspace (string replace -- --workspace= '' $word)
        end
        set before $word
    end
    string replace -r '^~/' "$HOME/" -- $workspace
end

function __facedan_directories
    string replace -r '.*/([^/]+)/$' '$1' -- $argv
end

function __facedan_datasets
    set -l workspace (__facedan_workspace)
    set -l directories $workspace/aligned/*/
    __facedan_directories $directories
    sed -n '/^\[datasets\]/,/^\[/s/^ *"\{0,1\}\([[:alnum:]_.-]\{1,\}\)"\{0,1\} *=.*/\1/p' $workspace/facedan.toml 2>/dev/null
end

function __facedan_runs
    set -l directories (__facedan_workspace)/runs/*/
    __facedan_directories $directories
end

complete -c facedan -f
complete -c facedan -n '__facedan_at' -a align -d 'Find the face in each photograph and bring eyes and mouth to one template'
complete -c facedan -n '__facedan_at' -a pretrain -d 'Stage 1: train a classifier of the source\'s people'
complete -c facedan -n '__facedan_at' -a adapt -d 'Stage 2: adapt the network to the target without its labels'
complete -c facedan -n '__facedan_at' -a embed -d 'L2-normalised features of aligned faces'
complete -c facedan -n '__facedan_at' -a demo -d 'Draw invented faces, adapt from web to studio pictures, show what it gave'
complete -c facedan -n '__facedan_at' -a evaluate -d 'Measure models: verification rate at a false-accept rate, or rank-1 identification'
complete -c facedan -n '__facedan_at' -l version -d 'Print the version'
complete -c facedan -n '__facedan_at' -l help -s h -d 'Show this message and exit'
complete -c facedan -n '__facedan_calls align' -F
complete -c facedan -n '__facedan_calls align' -l size -r -f -d 'Side of an aligned face, pixels'
complete -c facedan -n '__facedan_calls align' -l template -r -f -a 'vggface lfw arcface' -d 'Where eyes and mouth go: vggface, lfw, arcface'
complete -c facedan -n '__facedan_calls align' -l min-face -r -f -d 'Smallest face to look for, pixels'
complete -c facedan -n '__facedan_calls align' -l detector-batch -r -f -d 'Photographs that are searched together'
complete -c facedan -n '__facedan_calls align' -l landmarks -r -F -d 'CSV of eye or five-point coordinates to use where it has them (GBU\'s eyes.csv)'
complete -c facedan -n '__facedan_calls align' -l workers -r -f -d 'Threads that decode images; 0: one a processor'
complete -c facedan -n '__facedan_calls align' -l device -r -f -a 'auto cpu cuda' -d 'Where to compute: auto, cpu, cuda or cuda:N'
complete -c facedan -n '__facedan_calls align' -l workspace -s w -r -F -d 'Directory of data sets, runs and results'
complete -c facedan -n '__facedan_calls align' -l config -r -F -d 'Take defaults from this TOML file (such as a run\'s config.toml) before facedan.toml'
complete -c facedan -n '__facedan_calls align' -l force -d 'Do again what is done already'
complete -c facedan -n '__facedan_calls align' -l dry-run -d 'Print the plan and do nothing'
complete -c facedan -n '__facedan_calls align' -l json -d 'Print the result as JSON'
complete -c facedan -n '__facedan_calls align' -l quiet -s q -d 'No notes, no progress'
complete -c facedan -n '__facedan_calls align' -l verbose -s v -d 'More detail'
complete -c facedan -n '__facedan_calls align' -l help -s h -d 'Show this message and exit'
complete -c facedan -n '__facedan_calls pretrain' -l source -r -F -a '(__facedan_datasets)' -d 'Labelled faces, one folder a person: a path or a data set\'s name'
complete -c facedan -n '__facedan_calls pretrain' -l model -r -f -a 'vggface vggface-mini' -d 'Network: vggface or vggface-mini'
complete -c facedan -n '__facedan_calls pretrain' -l init -r -F -a '(__facedan_runs)' -d 'Weights or checkpoint to start from (torchvision\'s or our key names)'
complete -c facedan -n '__facedan_calls pretrain' -l iterations -r -f -d 'Training steps'
complete -c facedan -n '__facedan_calls pretrain' -l batch -r -f -d 'Images a step'
complete -c facedan -n '__facedan_calls pretrain' -l lr -r -f -d 'Base learning rate'
complete -c facedan -n '__facedan_calls pretrain' -l classifier-lr -r -f -d 'Last layer\'s rate, a multiple of --lr'
complete -c facedan -n '__facedan_calls pretrain' -l optimizer -r -f -a 'sgd adamw' -d 'sgd or adamw'
complete -c facedan -n '__facedan_calls pretrain' -l schedule -r -f -a 'constant onecycle' -d 'constant or onecycle'
complete -c facedan -n '__facedan_calls pretrain' -l momentum -r -f -d 'Momentum of sgd'
complete -c facedan -n '__facedan_calls pretrain' -l weight-decay -r -f -d 'Weight decay'
complete -c facedan -n '__facedan_calls pretrain' -l label-smoothing -r -f -d 'Share of the label spread over all people'
complete -c facedan -n '__facedan_calls pretrain' -l seed -r -f -d 'Seed of everything random'
complete -c facedan -n '__facedan_calls pretrain' -l checkpoint-every -r -f -d 'Save the state for resuming every N steps'
complete -c facedan -n '__facedan_calls pretrain' -l log-every -r -f -d 'Write a line of metrics.jsonl every N steps'
complete -c facedan -n '__facedan_calls pretrain' -l workers -r -f -d 'Threads that decode images; 0: one a processor'
complete -c facedan -n '__facedan_calls pretrain' -l device -r -f -a 'auto cpu cuda' -d 'Where to compute: auto, cpu, cuda or cuda:N'
complete -c facedan -n '__facedan_calls pretrain' -l workspace -s w -r -F -d 'Directory of data sets, runs and results'
complete -c facedan -n '__facedan_calls pretrain' -l config -r -F -d 'Take defaults from this TOML file (such as a run\'s config.toml) before facedan.toml'
complete -c facedan -n '__facedan_calls pretrain' -l force -d 'Do again what is done already'
complete -c facedan -n '__facedan_calls pretrain' -l dry-run -d 'Print the plan and do nothing'
complete -c facedan -n '__facedan_calls pretrain' -l json -d 'Print the result as JSON'
complete -c facedan -n '__facedan_calls pretrain' -l quiet -s q -d 'No notes, no progress'
complete -c facedan -n '__facedan_calls pretrain' -l verbose -s v -d 'More detail'
complete -c facedan -n '__facedan_calls pretrain' -l help -s h -d 'Show this message and exit'
complete -c facedan -n '__facedan_calls adapt' -l source -r -F -a '(__facedan_datasets)' -d 'Labelled faces, one folder a person: a path or a data set\'s name'
complete -c facedan -n '__facedan_calls adapt' -l target -r -F -a '(__facedan_datasets)' -d 'Unlabelled faces, any tree of images; folder names are not read'
complete -c facedan -n '__facedan_calls adapt' -l init -r -F -a '(__facedan_runs)' -d 'Run or checkpoint to start from'
complete -c facedan -n '__facedan_calls adapt' -l layers -r -f -a 'fc6,fc7 fc7 fc6' -d 'Layers whose features are brought together'
complete -c facedan -n '__facedan_calls adapt' -l kernels -r -f -d 'Gaussian kernels, of bandwidths γ, 2γ, 4γ …: the paper uses 1 and 5'
complete -c facedan -n '__facedan_calls adapt' -l lambda -r -f -d 'λ, the weight of the penalty; 0 is the control'
complete -c facedan -n '__facedan_calls adapt' -l estimator -r -f -a 'unbiased biased' -d 'unbiased, or biased as the paper\'s eq. 2 stands'
complete -c facedan -n '__facedan_calls adapt' -l bandwidth -r -f -a 'frozen batch' -d 'γ: frozen (median before training starts), batch (median of each batch) or a number'
complete -c facedan -n '__facedan_calls adapt' -l iterations -r -f -d 'Training steps'
complete -c facedan -n '__facedan_calls adapt' -l batch -r -f -d 'Source images a step, and as many target images'
complete -c facedan -n '__facedan_calls adapt' -l lr -r -f -d 'Base learning rate'
complete -c facedan -n '__facedan_calls adapt' -l classifier-lr -r -f -d 'Last layer\'s rate, a multiple of --lr'
complete -c facedan -n '__facedan_calls adapt' -l optimizer -r -f -a 'sgd adamw' -d 'sgd or adamw'
complete -c facedan -n '__facedan_calls adapt' -l schedule -r -f -a 'constant onecycle' -d 'constant or onecycle'
complete -c facedan -n '__facedan_calls adapt' -l momentum -r -f -d 'Momentum of sgd'
complete -c facedan -n '__facedan_calls adapt' -l weight-decay -r -f -d 'Weight decay'
complete -c facedan -n '__facedan_calls adapt' -l label-smoothing -r -f -d 'Share of the label spread over all people'
complete -c facedan -n '__facedan_calls adapt' -l seed -r -f -d 'Seed of everything random'
complete -c facedan -n '__facedan_calls adapt' -l checkpoint-every -r -f -d 'Save the state for resuming every N steps'
complete -c facedan -n '__facedan_calls adapt' -l log-every -r -f -d 'Write a line of metrics.jsonl every N steps'
complete -c facedan -n '__facedan_calls adapt' -l workers -r -f -d 'Threads that decode images; 0: one a processor'
complete -c facedan -n '__facedan_calls adapt' -l device -r -f -a 'auto cpu cuda' -d 'Where to compute: auto, cpu, cuda or cuda:N'
complete -c facedan -n '__facedan_calls adapt' -l workspace -s w -r -F -d 'Directory of data sets, runs and results'
complete -c facedan -n '__facedan_calls adapt' -l config -r -F -d 'Take defaults from this TOML file (such as a run\'s config.toml) before facedan.toml'
complete -c facedan -n '__facedan_calls adapt' -l force -d 'Do again what is done already'
complete -c facedan -n '__facedan_calls adapt' -l dry-run -d 'Print the plan and do nothing'
complete -c facedan -n '__facedan_calls adapt' -l json -d 'Print the result as JSON'
complete -c facedan -n '__facedan_calls adapt' -l quiet -s q -d 'No notes, no progress'
complete -c facedan -n '__facedan_calls adapt' -l verbose -s v -d 'More detail'
complete -c facedan -n '__facedan_calls adapt' -l help -s h -d 'Show this message and exit'
complete -c facedan -n '__facedan_calls embed' -F -a '(__facedan_datasets)'
complete -c facedan -n '__facedan_calls embed' -l model -r -F -a '(__facedan_runs)' -d 'Run or checkpoint'
complete -c facedan -n '__facedan_calls embed' -l layer -r -f -a 'fc7 fc6' -d 'fc7 or fc6'
complete -c facedan -n '__facedan_calls embed' -l flip -d 'Add the features of the mirrored face'
complete -c facedan -n '__facedan_calls embed' -l batch -r -f -d 'Images at a time'
complete -c facedan -n '__facedan_calls embed' -l workers -r -f -d 'Threads that decode images; 0: one a processor'
complete -c facedan -n '__facedan_calls embed' -l device -r -f -a 'auto cpu cuda' -d 'Where to compute: auto, cpu, cuda or cuda:N'
complete -c facedan -n '__facedan_calls embed' -l workspace -s w -r -F -d 'Directory of data sets, runs and results'
complete -c facedan -n '__facedan_calls embed' -l config -r -F -d 'Take defaults from this TOML file (such as a run\'s config.toml) before facedan.toml'
complete -c facedan -n '__facedan_calls embed' -l force -d 'Do again what is done already'
complete -c facedan -n '__facedan_calls embed' -l dry-run -d 'Print the plan and do nothing'
complete -c facedan -n '__facedan_calls embed' -l json -d 'Print the result as JSON'
complete -c facedan -n '__facedan_calls embed' -l quiet -s q -d 'No notes, no progress'
complete -c facedan -n '__facedan_calls embed' -l verbose -s v -d 'More detail'
complete -c facedan -n '__facedan_calls embed' -l help -s h -d 'Show this message and exit'
complete -c facedan -n '__facedan_calls demo' -l far -r -f -d 'False-accept rate; may be repeated'
complete -c facedan -n '__facedan_calls demo' -l seed -r -f -d 'Seed of everything random'
complete -c facedan -n '__facedan_calls demo' -l workers -r -f -d 'Threads that decode images; 0: one a processor'
complete -c facedan -n '__facedan_calls demo' -l workspace -s w -r -F -d 'Directory of data sets, runs and results'
complete -c facedan -n '__facedan_calls demo' -l config -r -F -d 'Take defaults from this TOML file (such as a run\'s config.toml) before facedan.toml'
complete -c facedan -n '__facedan_calls demo' -l json -d 'Print the result as JSON'
complete -c facedan -n '__facedan_calls demo' -l quiet -s q -d 'No notes, no progress'
complete -c facedan -n '__facedan_calls demo' -l verbose -s v -d 'More detail'
complete -c facedan -n '__facedan_calls demo' -l help -s h -d 'Show this message and exit'
complete -c facedan -n '__facedan_at evaluate' -a gbu -d 'Verification on the Good, the Bad and the Ugly (Phillips et al. 2012), the paper\'s Table I'
complete -c facedan -n '__facedan_at evaluate' -a pairs -d 'Verification on a list of pairs'
complete -c facedan -n '__facedan_at evaluate' -a identify -d 'Closed-set identification: rank-1 rate and CMC; ties count against the mate'
complete -c facedan -n '__facedan_at evaluate' -l help -s h -d 'Show this message and exit'
complete -c facedan -n '__facedan_calls evaluate gbu' -l model -r -F -a '(__facedan_runs)' -d 'Run or checkpoint; repeat it for a row each'
complete -c facedan -n '__facedan_calls evaluate gbu' -l far -r -f -d 'False-accept rate; may be repeated'
complete -c facedan -n '__facedan_calls evaluate gbu' -l images -r -F -a '(__facedan_datasets)' -d 'The aligned faces: a path or a data set\'s name'
complete -c facedan -n '__facedan_calls evaluate gbu' -l protocol -r -F -d 'Directory of the sigsets'
complete -c facedan -n '__facedan_calls evaluate gbu' -l layer -r -f -a 'fc7 fc6' -d 'fc7 or fc6'
complete -c facedan -n '__facedan_calls evaluate gbu' -l flip -d 'Add the features of the mirrored face'
complete -c facedan -n '__facedan_calls evaluate gbu' -l replicates -r -f -d 'Bootstrap replicates over people for the 95 % intervals; 0: no intervals'
complete -c facedan -n '__facedan_calls evaluate gbu' -l seed -r -f -d 'Seed of everything random'
complete -c facedan -n '__facedan_calls evaluate gbu' -l batch -r -f -d 'Images at a time'
complete -c facedan -n '__facedan_calls evaluate gbu' -l workers -r -f -d 'Threads that decode images; 0: one a processor'
complete -c facedan -n '__facedan_calls evaluate gbu' -l device -r -f -a 'auto cpu cuda' -d 'Where to compute: auto, cpu, cuda or cuda:N'
complete -c facedan -n '__facedan_calls evaluate gbu' -l workspace -s w -r -F -d 'Directory of data sets, runs and results'
complete -c facedan -n '__facedan_calls evaluate gbu' -l config -r -F -d 'Take defaults from this TOML file (such as a run\'s config.toml) before facedan.toml'
complete -c facedan -n '__facedan_calls evaluate gbu' -l force -d 'Do again what is done already'
complete -c facedan -n '__facedan_calls evaluate gbu' -l json -d 'Print the result as JSON'
complete -c facedan -n '__facedan_calls evaluate gbu' -l quiet -s q -d 'No notes, no progress'
complete -c facedan -n '__facedan_calls evaluate gbu' -l verbose -s v -d 'More detail'
complete -c facedan -n '__facedan_calls evaluate gbu' -l help -s h -d 'Show this message and exit'
complete -c facedan -n '__facedan_calls evaluate pairs' -F
complete -c facedan -n '__facedan_calls evaluate pairs' -l images -r -F -a '(__facedan_datasets)' -d 'The aligned faces: a path or a data set\'s name'
complete -c facedan -n '__facedan_calls evaluate pairs' -l model -r -F -a '(__facedan_runs)' -d 'Run or checkpoint; repeat it for a row each'
complete -c facedan -n '__facedan_calls evaluate pairs' -l far -r -f -d 'False-accept rate; may be repeated'
complete -c facedan -n '__facedan_calls evaluate pairs' -l layer -r -f -a 'fc7 fc6' -d 'fc7 or fc6'
complete -c facedan -n '__facedan_calls evaluate pairs' -l flip -d 'Add the features of the mirrored face'
complete -c facedan -n '__facedan_calls evaluate pairs' -l replicates -r -f -d 'Bootstrap replicates over people for the 95 % intervals; 0: no intervals'
complete -c facedan -n '__facedan_calls evaluate pairs' -l seed -r -f -d 'Seed of everything random'
complete -c facedan -n '__facedan_calls evaluate pairs' -l batch -r -f -d 'Images at a time'
complete -c facedan -n '__facedan_calls evaluate pairs' -l workers -r -f -d 'Threads that decode images; 0: one a processor'
complete -c facedan -n '__facedan_calls evaluate pairs' -l device -r -f -a 'auto cpu cuda' -d 'Where to compute: auto, cpu, cuda or cuda:N'
complete -c facedan -n '__facedan_calls evaluate pairs' -l workspace -s w -r -F -d 'Directory of data sets, runs and results'
complete -c facedan -n '__facedan_calls evaluate pairs' -l config -r -F -d 'Take defaults from this TOML file (such as a run\'s config.toml) before facedan.toml'
complete -c facedan -n '__facedan_calls evaluate pairs' -l force -d 'Do again what is done already'
complete -c facedan -n '__facedan_calls evaluate pairs' -l json -d 'Print the result as JSON'
complete -c facedan -n '__facedan_calls evaluate pairs' -l quiet -s q -d 'No notes, no progress'
complete -c facedan -n '__facedan_calls evaluate pairs' -l verbose -s v -d 'More detail'
complete -c facedan -n '__facedan_calls evaluate pairs' -l help -s h -d 'Show this message and exit'
complete -c facedan -n '__facedan_calls evaluate identify' -l gallery -r -F -a '(__facedan_datasets)' -d 'Known people, one folder each: a path or a data set\'s name'
complete -c facedan -n '__facedan_calls evaluate identify' -l probe -r -F -a '(__facedan_datasets)' -d 'Faces to be recognised, in folders likewise'
complete -c facedan -n '__facedan_calls evaluate identify' -l model -r -F -a '(__facedan_runs)' -d 'Run or checkpoint; repeat it for a row each'
complete -c facedan -n '__facedan_calls evaluate identify' -l layer -r -f -a 'fc7 fc6' -d 'fc7 or fc6'
complete -c facedan -n '__facedan_calls evaluate identify' -l flip -d 'Add the features of the mirrored face'
complete -c facedan -n '__facedan_calls evaluate identify' -l replicates -r -f -d 'Bootstrap replicates over people for the 95 % intervals; 0: no intervals'
complete -c facedan -n '__facedan_calls evaluate identify' -l seed -r -f -d 'Seed of everything random'
complete -c facedan -n '__facedan_calls evaluate identify' -l batch -r -f -d 'Images at a time'
complete -c facedan -n '__facedan_calls evaluate identify' -l workers -r -f -d 'Threads that decode images; 0: one a processor'
complete -c facedan -n '__facedan_calls evaluate identify' -l device -r -f -a 'auto cpu cuda' -d 'Where to compute: auto, cpu, cuda or cuda:N'
complete -c facedan -n '__facedan_calls evaluate identify' -l workspace -s w -r -F -d 'Directory of data sets, runs and results'
complete -c facedan -n '__facedan_calls evaluate identify' -l config -r -F -d 'Take defaults from this TOML file (such as a run\'s config.toml) before facedan.toml'
complete -c facedan -n '__facedan_calls evaluate identify' -l force -d 'Do again what is done already'
complete -c facedan -n '__facedan_calls evaluate identify' -l json -d 'Print the result as JSON'
complete -c facedan -n '__facedan_calls evaluate identify' -l quiet -s q -d 'No notes, no progress'
complete -c facedan -n '__facedan_calls evaluate identify' -l verbose -s v -d 'More detail'
complete -c facedan -n '__facedan_calls evaluate identify' -l help -s h -d 'Show this message and exit'
