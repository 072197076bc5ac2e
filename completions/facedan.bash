# bash completion for facedan. Made by .ci/generate.py from the command line itself; do not edit.

# Sets `workspace`: that of the command line, else of the environment, else the current directory.
_facedan_workspace() {
    workspace=${FACEDAN_WORKSPACE:-.}
    local i
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -w || ${COMP_WORDS[i]} == --workspace ]]; then
            workspace=${COMP_WORDS[i + 1]}
            [[ $workspace == = ]] && workspace=${COMP_WORDS[i + 2]}
        fi
    done
    workspace=${workspace/#\~\//$HOME/}
}

# Answers with those of the names that begin as the current word does.
_facedan_names() {
    local name
    for name; do
        name=${name%/}
        name=${name##*/}
        [[ $name == "$current"* && $name != '*' ]] && COMPREPLY+=("$(printf %q "$name")")
    done
}

_facedan() {
    local current=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' kind='' options='' words='' workspace
    COMPREPLY=()
    # bash splits --option=value into three words.
    if [[ $current == = ]]; then
        current=''
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    ((COMP_CWORD > 1)) && command=${COMP_WORDS[1]}
    case $command in
    evaluate) ((COMP_CWORD > 2)) && command+=" ${COMP_WORDS[2]}" ;;
    esac
    case $command in
    '')
        options='--version --help -h'
        kind=word words='align pretrain adapt embed table export models demo evaluate'
        ;;
    align)
        options='--root --for --input --size --template --points --min-face --second-pass --landmark-offset --detector-batch --landmarks --no-align --contact-sheet --workers --device --workspace -w --config --force --dry-run --json --quiet -q --verbose -v --help -h'
        case $option in
        --root | --landmarks | --contact-sheet | --workspace | -w | --config) kind=path ;;
        --for) kind=value words='vggface vggface-mini facenet iresnet18 iresnet34 iresnet50 iresnet100 iresnet200 adaface-ir18 adaface-ir34 adaface-ir50 adaface-ir101 mobilefacenet mbf dlib-resnet' ;;
        --input | --size | --min-face | --detector-batch | --workers) kind=value ;;
        --template) kind=value words='vggface lfw arcface arcface5 arcface5-frame dlib' ;;
        --points) kind=value words='3 5' ;;
        --landmark-offset) kind=value words='corrected reference' ;;
        --device) kind=value words='auto cpu cuda' ;;
        *) kind=path ;;
        esac
        ;;
    pretrain)
        options='--source --model --init --layers --gallery --holdout --holdout-identities --iterations --batch --lr --backbone-lr-mult --classifier-lr-mult --optimizer --schedule --momentum --weight-decay --label-smoothing --input-normalisation --batch-norm --augment --train-from --seed --strict --head --margin --scale --sample-rate --shard-classifier --precision --compile --grad-accum --cache --checkpoint-every --keep-every --log-every --tensorboard --input --mean --std --channels --workers --device --workspace -w --config --force --dry-run --json --quiet -q --verbose -v --help -h'
        case $option in
        --source | --gallery) kind=dataset ;;
        --model) kind=value words='vggface vggface-mini facenet iresnet18 iresnet34 iresnet50 iresnet100 iresnet200 adaface-ir18 adaface-ir34 adaface-ir50 adaface-ir101 mobilefacenet mbf dlib-resnet pcanet' ;;
        --init) kind=run ;;
        --layers | --holdout | --holdout-identities | --iterations | --batch | --lr | --backbone-lr-mult | --classifier-lr-mult | --momentum | --weight-decay | --label-smoothing | --train-from | --seed | --margin | --scale | --sample-rate | --grad-accum | --checkpoint-every | --keep-every | --log-every | --input | --mean | --std | --workers) kind=value ;;
        --optimizer) kind=value words='sgd adamw' ;;
        --schedule) kind=value words='constant onecycle' ;;
        --input-normalisation) kind=value words='none clahe retinex' ;;
        --batch-norm) kind=value words='frozen source' ;;
        --augment) kind=value words='none all contrast grey blur resolution noise jpeg' ;;
        --head) kind=value words='softmax arcface cosface sphereface adaface' ;;
        --precision) kind=value words='auto fp32 bf16 fp16' ;;
        --cache) kind=value words='auto ram disk none' ;;
        --channels) kind=value words='auto rgb bgr' ;;
        --device) kind=value words='auto cpu cuda' ;;
        --workspace | -w | --config) kind=path ;;
        *) kind=option ;;
        esac
        ;;
    adapt)
        options='--source --target --init --preset --check --layers --method --adabn-mix --whiten-power --whiten-rank --whiten-flip --restyle-share --restyle-by --mask-share --kernels --lambda --normalise-features --keep --lambda-ramp --discrepancy --estimator --bandwidth --median --bandwidth-multipliers --kernel-weights --memory-bank --select --lambdas --candidates --budget --holdout --holdout-identities --iterations --batch --lr --backbone-lr-mult --classifier-lr-mult --optimizer --schedule --momentum --weight-decay --label-smoothing --input-normalisation --batch-norm --augment --train-from --seed --strict --head --margin --scale --sample-rate --shard-classifier --precision --compile --grad-accum --cache --checkpoint-every --keep-every --log-every --tensorboard --input --mean --std --channels --workers --device --workspace -w --config --force --dry-run --json --quiet -q --verbose -v --help -h'
        case $option in
        --source | --target) kind=dataset ;;
        --init) kind=run ;;
        --preset) kind=value words='paper strong' ;;
        --check | --workspace | -w | --config) kind=path ;;
        --layers) kind=value words='fc6,fc7 pool,embedding embedding fc6 fc7 pool' ;;
        --method) kind=value words='mmd restyle masks adabn whiten mmd+whiten adabn+whiten' ;;
        --adabn-mix | --whiten-power | --whiten-rank | --restyle-share | --mask-share | --kernels | --lambda | --keep | --lambda-ramp | --bandwidth-multipliers | --memory-bank | --lambdas | --budget | --holdout | --holdout-identities | --iterations | --batch | --lr | --backbone-lr-mult | --classifier-lr-mult | --momentum | --weight-decay | --label-smoothing | --train-from | --seed | --margin | --scale | --sample-rate | --grad-accum | --checkpoint-every | --keep-every | --log-every | --input | --mean | --std | --workers) kind=value ;;
        --restyle-by) kind=value words='all resolution amplitude statistics histogram' ;;
        --discrepancy) kind=value words='mk-mmd jmmd coral energy' ;;
        --estimator) kind=value words='unbiased biased linear' ;;
        --bandwidth) kind=value words='frozen ema batch' ;;
        --median) kind=value words='squared sigma' ;;
        --kernel-weights) kind=value words='equal optimal' ;;
        --candidates) kind=value words='all centre whiten adabn restyle mmd' ;;
        --optimizer) kind=value words='sgd adamw' ;;
        --schedule) kind=value words='constant onecycle' ;;
        --input-normalisation) kind=value words='none clahe retinex' ;;
        --batch-norm) kind=value words='frozen source joint target' ;;
        --augment) kind=value words='none all contrast grey blur resolution noise jpeg' ;;
        --head) kind=value words='softmax arcface cosface sphereface adaface' ;;
        --precision) kind=value words='auto fp32 bf16 fp16' ;;
        --cache) kind=value words='auto ram disk none' ;;
        --channels) kind=value words='auto rgb bgr' ;;
        --device) kind=value words='auto cpu cuda' ;;
        *) kind=option ;;
        esac
        ;;
    embed)
        options='--model --layer --flip --input --mean --std --channels --strict --batch --workers --device --workspace -w --config --force --dry-run --json --quiet -q --verbose -v --help -h'
        case $option in
        --model) kind=model ;;
        --layer) kind=value words='fc6 fc7 pool embedding' ;;
        --input | --mean | --std | --batch | --workers) kind=value ;;
        --channels) kind=value words='auto rgb bgr' ;;
        --device) kind=value words='auto cpu cuda' ;;
        --workspace | -w | --config) kind=path ;;
        *) kind=dataset ;;
        esac
        ;;
    table)
        options='--source --target --rows --methods --also --embeddings --seeds --model --init --pretrain-iterations --iterations --lambda --far --ci --replicates --format --images --protocol --any-lists --pairs --gallery --probe --strict --workers --device --workspace -w --config --dry-run --json --quiet -q --verbose -v --help -h'
        case $option in
        --source | --target | --images | --gallery | --probe) kind=dataset ;;
        --rows | --embeddings | --seeds | --pretrain-iterations | --iterations | --lambda | --far | --replicates | --workers) kind=value ;;
        --methods) kind=value words='whiten mmd+whiten adabn,whiten' ;;
        --also) kind=model ;;
        --model) kind=value words='vggface vggface-mini facenet iresnet18 iresnet34 iresnet50 iresnet100 iresnet200 adaface-ir18 adaface-ir34 adaface-ir50 adaface-ir101 mobilefacenet mbf dlib-resnet' ;;
        --init) kind=run ;;
        --ci) kind=value words='bootstrap wilson none' ;;
        --format) kind=value words='text markdown latex csv' ;;
        --protocol | --pairs | --workspace | -w | --config) kind=path ;;
        --device) kind=value words='auto cpu cuda' ;;
        *) kind=word words='gbu feret pairs identify' ;;
        esac
        ;;
    export)
        options='--format --raw --layer --flip --input --mean --std --channels --workspace -w --config --force --dry-run --json --quiet -q --verbose -v --help -h'
        case $option in
        --format) kind=value words='onnx torchscript safetensors original hub' ;;
        --layer) kind=value words='fc6 fc7 pool embedding' ;;
        --input | --mean | --std) kind=value ;;
        --channels) kind=value words='auto rgb bgr' ;;
        --workspace | -w | --config) kind=path ;;
        *) kind=model ;;
        esac
        ;;
    models)
        options='--input --mean --std --layers --workspace -w --config --json --quiet -q --help -h'
        case $option in
        --input | --mean | --std | --layers) kind=value ;;
        --workspace | -w | --config) kind=path ;;
        *) kind=word words='vggface vggface-mini facenet iresnet18 iresnet34 iresnet50 iresnet100 iresnet200 adaface-ir18 adaface-ir34 adaface-ir50 adaface-ir101 mobilefacenet mbf dlib-resnet' ;;
        esac
        ;;
    demo)
        options='--far --seed --workers --workspace -w --config --json --quiet -q --verbose -v --help -h'
        case $option in
        --far | --seed | --workers) kind=value ;;
        --workspace | -w | --config) kind=path ;;
        *) kind=option ;;
        esac
        ;;
    evaluate)
        options='--help -h'
        kind=word words='gbu feret lfw pairs identify verify scores'
        ;;
    'evaluate gbu')
        options='--model --embeddings --far --images --protocol --convention --ci --embeddings-distance --replicates --seed --fuse --save-scores --plot --layer --flip --input --mean --std --channels --strict --batch --workers --device --workspace -w --config --force --json --csv --quiet -q --verbose -v --help -h'
        case $option in
        --model) kind=model ;;
        --embeddings | --far | --replicates | --seed | --input | --mean | --std | --batch | --workers) kind=value ;;
        --images) kind=dataset ;;
        --protocol | --workspace | -w | --config) kind=path ;;
        --convention) kind=value words='max-tar bob openbr nearest' ;;
        --ci) kind=value words='bootstrap wilson none' ;;
        --embeddings-distance) kind=value words='cosine euclidean' ;;
        --plot) kind=value words='png svg pdf' ;;
        --layer) kind=value words='fc6 fc7 pool embedding' ;;
        --channels) kind=value words='auto rgb bgr' ;;
        --device) kind=value words='auto cpu cuda' ;;
        *) kind=option ;;
        esac
        ;;
    'evaluate feret')
        options='--model --embeddings --images --protocol --any-lists --ci --embeddings-distance --replicates --seed --fuse --save-scores --plot --layer --flip --input --mean --std --channels --strict --batch --workers --device --workspace -w --config --force --json --csv --quiet -q --verbose -v --help -h'
        case $option in
        --model) kind=model ;;
        --embeddings | --replicates | --seed | --input | --mean | --std | --batch | --workers) kind=value ;;
        --images) kind=dataset ;;
        --protocol | --workspace | -w | --config) kind=path ;;
        --ci) kind=value words='bootstrap wilson none' ;;
        --embeddings-distance) kind=value words='cosine euclidean' ;;
        --plot) kind=value words='png svg pdf' ;;
        --layer) kind=value words='fc6 fc7 pool embedding' ;;
        --channels) kind=value words='auto rgb bgr' ;;
        --device) kind=value words='auto cpu cuda' ;;
        *) kind=option ;;
        esac
        ;;
    'evaluate lfw')
        options='--model --embeddings --far --images --pairs --convention --ci --embeddings-distance --replicates --seed --fuse --save-scores --plot --layer --flip --input --mean --std --channels --strict --batch --workers --device --workspace -w --config --force --json --csv --quiet -q --verbose -v --help -h'
        case $option in
        --model) kind=model ;;
        --embeddings | --far | --replicates | --seed | --input | --mean | --std | --batch | --workers) kind=value ;;
        --images) kind=dataset ;;
        --pairs | --workspace | -w | --config) kind=path ;;
        --convention) kind=value words='max-tar bob openbr nearest' ;;
        --ci) kind=value words='bootstrap wilson none' ;;
        --embeddings-distance) kind=value words='cosine euclidean' ;;
        --plot) kind=value words='png svg pdf' ;;
        --layer) kind=value words='fc6 fc7 pool embedding' ;;
        --channels) kind=value words='auto rgb bgr' ;;
        --device) kind=value words='auto cpu cuda' ;;
        *) kind=option ;;
        esac
        ;;
    'evaluate pairs')
        options='--images --model --embeddings --far --convention --ci --embeddings-distance --replicates --seed --fuse --save-scores --plot --layer --flip --input --mean --std --channels --strict --batch --workers --device --workspace -w --config --force --json --csv --quiet -q --verbose -v --help -h'
        case $option in
        --images) kind=dataset ;;
        --model) kind=model ;;
        --embeddings | --far | --replicates | --seed | --input | --mean | --std | --batch | --workers) kind=value ;;
        --convention) kind=value words='max-tar bob openbr nearest' ;;
        --ci) kind=value words='bootstrap wilson none' ;;
        --embeddings-distance) kind=value words='cosine euclidean' ;;
        --plot) kind=value words='png svg pdf' ;;
        --layer) kind=value words='fc6 fc7 pool embedding' ;;
        --channels) kind=value words='auto rgb bgr' ;;
        --device) kind=value words='auto cpu cuda' ;;
        --workspace | -w | --config) kind=path ;;
        *) kind=path ;;
        esac
        ;;
    'evaluate identify')
        options='--gallery --probe --model --embeddings --fpir --ci --embeddings-distance --replicates --seed --fuse --save-scores --plot --layer --flip --input --mean --std --channels --strict --batch --workers --device --workspace -w --config --force --json --csv --quiet -q --verbose -v --help -h'
        case $option in
        --gallery | --probe) kind=dataset ;;
        --model) kind=model ;;
        --embeddings | --fpir | --replicates | --seed | --input | --mean | --std | --batch | --workers) kind=value ;;
        --ci) kind=value words='bootstrap wilson none' ;;
        --embeddings-distance) kind=value words='cosine euclidean' ;;
        --plot) kind=value words='png svg pdf' ;;
        --layer) kind=value words='fc6 fc7 pool embedding' ;;
        --channels) kind=value words='auto rgb bgr' ;;
        --device) kind=value words='auto cpu cuda' ;;
        --workspace | -w | --config) kind=path ;;
        *) kind=option ;;
        esac
        ;;
    'evaluate verify')
        options='--model --embeddings --far --convention --ci --embeddings-distance --replicates --seed --fuse --save-scores --plot --layer --flip --input --mean --std --channels --strict --batch --workers --device --workspace -w --config --force --json --csv --quiet -q --verbose -v --help -h'
        case $option in
        --model) kind=model ;;
        --embeddings | --far | --replicates | --seed | --input | --mean | --std | --batch | --workers) kind=value ;;
        --convention) kind=value words='max-tar bob openbr nearest' ;;
        --ci) kind=value words='bootstrap wilson none' ;;
        --embeddings-distance) kind=value words='cosine euclidean' ;;
        --plot) kind=value words='png svg pdf' ;;
        --layer) kind=value words='fc6 fc7 pool embedding' ;;
        --channels) kind=value words='auto rgb bgr' ;;
        --device) kind=value words='auto cpu cuda' ;;
        --workspace | -w | --config) kind=path ;;
        *) kind=dataset ;;
        esac
        ;;
    'evaluate scores')
        options='--far --mask --convention --ci --replicates --seed --plot --workspace -w --config --json --csv --quiet -q --verbose -v --help -h'
        case $option in
        --far | --replicates | --seed) kind=value ;;
        --mask | --workspace | -w | --config) kind=path ;;
        --convention) kind=value words='max-tar bob openbr nearest' ;;
        --ci) kind=value words='bootstrap wilson none' ;;
        --plot) kind=value words='png svg pdf' ;;
        *) kind=path ;;
        esac
        ;;
    esac
    [[ $kind != value && $current == -* ]] && kind=option
    case $kind in
    dataset)
        _facedan_workspace
        local IFS=$'\n'
        # shellcheck disable=SC2046
        _facedan_names "$workspace"/aligned/*/ $(sed -n '/^\[datasets\]/,/^\[/s/^ *"\{0,1\}\([[:alnum:]_.-]\{1,\}\)"\{0,1\} *=.*/\1/p' "$workspace/facedan.toml" 2>/dev/null)
        ;;
    run | model)
        _facedan_workspace
        _facedan_names "$workspace"/runs/*/
        # Where nothing answers, readline completes paths.
        [[ $kind == model && (${#COMPREPLY[@]} -gt 0 || -z $(compgen -f -- "$current")) ]] && _facedan_names lbp
        ;;
    path) ;;
    *)
        compopt +o default 2>/dev/null
        [[ $kind == option ]] && words=$options
        # shellcheck disable=SC2207
        COMPREPLY=($(compgen -W "$words" -- "$current"))
        ;;
    esac
    return 0
}

complete -o default -F _facedan facedan
